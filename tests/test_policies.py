import collections

import gymnasium
import pytest

from steppo_gym import ByteCodec, ExpertPolicy, RandomPolicy, Request, ScriptedPolicy
from steppo_gym.actions import parse_text
from steppo_gym.audit.mixtures import NoisyExpert

CODEC = ByteCodec()
NAMES = {"steppo/KeyDoor-v0": {}, "steppo/WebShop-v0": {"tool": "env_step", "argument": "command"}}


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


@pytest.mark.parametrize("action_format", ["tag", "tool_call"])
@pytest.mark.parametrize("env_id", ["steppo/KeyDoor-v0", "steppo/WebShop-v0"])
def test_listed_actions_are_written_as_the_environment_reads_them(env_id, action_format):
    """The tools of the two and their arguments have different names."""
    env = gymnasium.make(env_id, action_format=action_format).unwrapped
    policies = RandomPolicy(CODEC, seed=0, tools=env.tools), NoisyExpert(CODEC, 1.0, tools=env.tools)
    for policy in policies:
        _, info = env.reset(seed=0)
        asked = Request(0, (1,), info["admissible_actions"], env.expert_response(), stream=(0, 0))
        (text,) = texts(policy.respond([asked]))
        info = env.step(text)[4]
        assert info["invalid_action"] is None
        assert parse_text(text, action_format, **NAMES[env_id]) in asked.admissible_actions


def test_random_policy_takes_the_tag_of_the_environment():
    policy = RandomPolicy(CODEC, seed=0, tag="act")
    assert texts(policy.respond([Request(0, (1,), admissible_actions=("look",))])) == ["<act>look</act>"]


@pytest.mark.parametrize("actions", [None, ()])
def test_random_policy_needs_a_list(actions):
    with pytest.raises(ValueError, match="needs an environment that lists its admissible actions"):
        RandomPolicy(CODEC, seed=0).respond([Request(0, (1,), admissible_actions=actions)])


def test_no_script_knows_log_probabilities():
    request = Request(0, (1,), admissible_actions=("a",), expert_response="a")
    for policy in (ScriptedPolicy(["a"], CODEC), ExpertPolicy(CODEC), RandomPolicy(CODEC, seed=0)):
        assert policy.respond([request])[0].log_probs is None
