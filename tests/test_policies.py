import collections

import pytest

from steppo_gym import ByteCodec, ExpertPolicy, RandomPolicy, Request, ScriptedPolicy
from steppo_gym.actions import parse_tag, parse_tool_calls

CODEC = ByteCodec()


def texts(responses):
    return [CODEC.decode_response(response.token_ids) for response in responses]


def test_scripted_responses_go_round_for_each_slot():
    policy = ScriptedPolicy(["a", "b"], CODEC)
    one, other = Request(0, (1,)), Request(7, (1,))
    assert texts(policy.respond([one])) == ["a"]
    assert texts(policy.respond([other, one])) == ["a", "b"]
    assert texts(policy.respond([one, other])) == ["a", "b"]
    assert not policy.needs_expert


def test_scripted_policy_wants_a_response():
    with pytest.raises(ValueError, match="responses must hold at least one text, got none"):
        ScriptedPolicy([], CODEC)


def test_expert_policy_writes_what_the_request_carries():
    policy = ExpertPolicy(CODEC)
    requests = [Request(0, (1,), expert_response="a"), Request(1, (1,), expert_response="")]
    assert policy.needs_expert
    assert texts(policy.respond(requests)) == ["a", ""]
    with pytest.raises(ValueError, match="slot 3 carries no expert_response"):
        policy.respond([Request(3, (1,))])


def test_random_policy_draws_all_actions_alike_and_repeats_with_the_seed():
    requests = [Request(slot, (1,), admissible_actions=("look", "go", "stop")) for slot in range(600)]
    drawn = texts(RandomPolicy(CODEC, seed=1).respond(requests))
    assert drawn == texts(RandomPolicy(CODEC, seed=1).respond(requests))
    assert drawn != texts(RandomPolicy(CODEC, seed=2).respond(requests))
    counts = collections.Counter(drawn)
    assert set(counts) == {f"<action>{action}</action>" for action in ("look", "go", "stop")}
    assert min(counts.values()) > 150  # 200 expected, 4 standard deviations are 46


@pytest.mark.parametrize(("action_format", "name", "argument"), [("tag", "act", "x"), ("tool_call", "act", "command")])
def test_random_policy_writes_in_the_format_of_the_environment(action_format, name, argument):
    policy = RandomPolicy(CODEC, seed=0, action_format=action_format, name=name, argument=argument)
    (text,) = texts(policy.respond([Request(0, (1,), admissible_actions=("look",))]))
    if action_format == "tag":
        assert parse_tag(text, (name,)).arguments == {"text": "look"}
    else:
        (call,) = parse_tool_calls(text)
        assert (call.name, call.arguments) == (name, {argument: "look"})


@pytest.mark.parametrize("actions", [None, ()])
def test_random_policy_needs_a_list(actions):
    with pytest.raises(ValueError, match="needs an environment that lists its admissible actions"):
        RandomPolicy(CODEC, seed=0).respond([Request(0, (1,), admissible_actions=actions)])


def test_no_script_knows_log_probabilities():
    request = Request(0, (1,), admissible_actions=("a",), expert_response="a")
    for policy in (ScriptedPolicy(["a"], CODEC), ExpertPolicy(CODEC), RandomPolicy(CODEC, seed=0)):
        assert policy.respond([request])[0].log_probs is None
