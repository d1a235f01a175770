from __future__ import annotations

import json
from http import HTTPStatus

import pytest

from steppo_gym.errors import InfrastructureError
from steppo_gym.evaluation.chat_codec import ChatTextCodec, Message, read_messages
from steppo_gym.evaluation.chat_server import ChatServerPolicy, chat_messages, read_answer
from steppo_gym.rollouts.policies import Request
from steppo_gym.rollouts.pool import EnvFactory, EnvPool
from steppo_gym.rollouts.rollout import Assignment, collect
from steppo_gym.storage import retrying_client
from steppo_gym.storage.http_server import RefusedError
from steppo_gym.testing.chat_server import ScriptedChatServer

CODEC = ChatTextCodec()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setattr(retrying_client, "FIRST_DELAY_SECONDS", 0.01)


def call(name, arguments):
    return {"id": "x", "type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}


@pytest.mark.parametrize("system", ["", "Rules."])
@pytest.mark.parametrize("text", ["plain", "é 汉 \x00 </s>", "", "half \ud800 of a pair"])
def test_conversations_come_back_from_their_ids(system, text):
    prompt = CODEC.first_prompt(system, (), text)
    response = CODEC.encode_response(text)
    shown = text.encode(errors="replace").decode()
    assert CODEC.decode_response(response) == shown
    longer = CODEC.next_prompt(prompt + response, "next")
    assert longer[: len(prompt + response)] == prompt + response
    begin = [Message("system", system)] if system else []
    assert read_messages(longer) == [*begin, ("user", shown), ("assistant", shown), ("user", "next")]


def test_requests_carry_the_system_prompt_and_the_settings():
    with ScriptedChatServer(lambda request: {"content": f"echo {request['messages'][-1]['content']}"}) as server:
        settings = {"max_tokens": 9, "temperature": 0.7, "seed": 3, "max_retries": 0}
        with ChatServerPolicy(server.url + "/v1", "tiny", **settings) as policy:
            requests = [Request(i, CODEC.first_prompt("Rules.", (), f"o{i}"), stream=(i, 0)) for i in range(8)]
            texts = [CODEC.decode_response(response.token_ids) for response in policy.respond(requests)]
            policy.respond(requests[:1])
    assert texts == [f"echo o{i}" for i in range(8)]
    *first, again = server.requests
    assert all(r["messages"][0] == {"role": "system", "content": "Rules."} for r in first)
    assert {(r["model"], r["max_tokens"], r["temperature"]) for r in first} == {("tiny", 9, 0.7)}
    assert "tools" not in again
    # One seed for each place in the evaluation, the same whenever it is asked.
    assert len({r["seed"] for r in first}) == 8
    assert again in first


@pytest.mark.parametrize("end", ["", "/", "/v1", "/v1/", "/v1/chat/completions"])
def test_the_address_may_be_that_of_the_server_or_of_its_endpoint(end):
    with ChatServerPolicy("http://127.0.0.1:9" + end, "tiny", max_tokens=1) as policy:
        assert policy.url == "http://127.0.0.1:9/v1/chat/completions"


def expert_server(spec, style):
    """Answers as the environment's expert would: it plays the conversation again in an environment of its own."""

    def answer(request):
        env = spec.make()
        *_, goal = (m["content"] for m in request["messages"] if m["role"] == "user" and "Goal" in m["content"])
        for task_id in env.task_ids[:6]:
            observation, _ = env.reset(seed=0, options={"task_id": task_id})
            if observation == goal:
                break
        said = []
        for message in request["messages"]:
            if message["role"] == "assistant":
                calls = message.get("tool_calls")
                assert (calls is not None) == (style == "tool_call")
                said.append(
                    f'<tool_call>{{"name": "{calls[0]["function"]["name"]}", '
                    f'"arguments": {calls[0]["function"]["arguments"]}}}</tool_call>'
                    if calls
                    else message["content"]
                )
        for text in said:
            env.step(text)
        expert = env.expert_response()
        if style == "tag":
            return {"content": f"<think>Now.</think>{expert}"}
        body = json.loads(expert.removeprefix("<tool_call>").removesuffix("</tool_call>"))
        return {"content": None, "tool_calls": [call(body["name"], body["arguments"])]}

    return ScriptedChatServer(answer)


@pytest.mark.parametrize("style", ["tag", "tool_call"])
def test_a_server_that_knows_the_way_solves_every_task(style):
    kwargs = {"split": "test", "context": "append", "action_format": style}
    spec = EnvFactory("steppo/KeyDoor-v0", kwargs)
    with expert_server(spec, style) as server, EnvPool(spec, num_slots=3) as pool:
        with ChatServerPolicy(server.url, "expert", max_tokens=64, tools=pool.tools) as policy:
            assignments = [Assignment(f"test-{i}", seed=i) for i in range(6)]
            episodes = collect(policy, pool, CODEC, assignments).episodes
        assert all(("tools" in request) == (style == "tool_call") for request in server.requests)
    assert all(episode.success for episode in episodes)
    assert not any(step.invalid_action for episode in episodes for step in episode.steps)
    assert len(server.requests) == sum(episode.num_steps for episode in episodes)


def test_calls_go_back_as_calls_with_one_answer_each():
    text = "Looking.\n" + "".join(
        f'<tool_call>{{"name": "search", "arguments": {{"query": "{query}"}}}}</tool_call>' for query in "ab"
    )
    messages = [Message("user", "Q"), Message("assistant", text), Message("user", "found"), Message("assistant", "x")]
    user, assistant, *answers, plain = chat_messages(messages, has_tools=True)
    assert user == {"role": "user", "content": "Q"} and plain == {"role": "assistant", "content": "x"}
    assert assistant["content"] == "Looking."
    assert [c["function"]["arguments"] for c in assistant["tool_calls"]] == ['{"query": "a"}', '{"query": "b"}']
    assert [a["tool_call_id"] for a in answers] == [c["id"] for c in assistant["tool_calls"]]
    assert answers[0]["content"] == "found"
    # Without tools the same text is only text.
    assert chat_messages(messages, has_tools=False)[1] == {"role": "assistant", "content": text}


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ({"content": "hi"}, "hi"),
        ({"content": None}, ""),
        ({"content": None, "refusal": "I will not."}, "I will not."),
        ({"content": "t", "tool_calls": [call("go", {"to": "</x>"})]},
         't\n<tool_call>{"name": "go", "arguments": {"to": "<\\/x>"}}</tool_call>'),
        ({"content": "", "tool_calls": [{"function": {"name": "go", "arguments": "{broken"}}]},
         '<tool_call>{"name": "go", "arguments": {broken}</tool_call>'),
        ({"content": "", "tool_calls": [{"function": {"name": "go", "arguments": "[1]"}}]},
         '<tool_call>{"name": "go", "arguments": [1]}</tool_call>'),
    ],
)  # fmt: skip
def test_what_an_answer_says(message, text):
    assert read_answer(json.dumps({"choices": [{"message": message}]})) == text


@pytest.mark.parametrize(
    "body",
    ["<html>", "[" * 100_000, "[]", "{}", '{"choices": []}', '{"choices": [{}]}', '{"choices": [{"message": "x"}]}',
     '{"choices": [{"message": {"content": 3}}]}', '{"choices": [{"message": {"tool_calls": [{"function": 1}]}}]}'],
)  # fmt: skip
def test_answers_that_make_no_sense_are_failures_and_not_responses(body):
    with pytest.raises(InfrastructureError, match=r"Expected .*found .*Check the address") as caught:
        read_answer(body)
    assert caught.value.boundary == "model" and len(str(caught.value)) < 400


def test_passing_trouble_is_tried_again_and_lasting_trouble_ends():
    left = [2]

    def busy(request):
        left[0] -= 1
        if left[0] >= 0:
            raise RefusedError(HTTPStatus.SERVICE_UNAVAILABLE, "loading")
        return {"content": "ok"}

    request = Request(0, CODEC.first_prompt("", (), "o"), stream=(0, 0))
    with ScriptedChatServer(busy) as server, ChatServerPolicy(server.url, "m", max_tokens=5, max_retries=2) as policy:
        assert CODEC.decode_response(policy.respond([request])[0].token_ids) == "ok"
        left[0] = 3
        with pytest.raises(InfrastructureError, match=r"no response in 3 attempts.*HTTP 503: 'loading'"):
            policy.respond([request])


def test_a_server_that_names_another_word_for_the_limit_is_asked_with_it():
    def answer(request):
        if "max_tokens" in request:
            raise RefusedError(
                HTTPStatus.BAD_REQUEST,
                "Unsupported parameter: 'max_tokens' is not supported with this model. "
                "Use 'max_completion_tokens' instead.",
            )
        return {"content": "yes"}

    with ScriptedChatServer(answer) as server, ChatServerPolicy(server.url, "tiny", max_tokens=9) as policy:
        requests = [Request(i, CODEC.first_prompt("", (), "o"), stream=(i, 0)) for i in range(4)]
        for _ in range(2):
            assert [CODEC.decode_response(r.token_ids) for r in policy.respond(requests)] == ["yes"] * 4
    assert all(r["max_completion_tokens"] == 9 and "max_tokens" not in r for r in server.requests[-4:])


SEED_REFUSALS = [
    "Unsupported parameter: 'seed' is not supported with this model.",
    '{"type": "extra_forbidden", "loc": ["body", "seed"]}',
]


@pytest.mark.parametrize("refusal", SEED_REFUSALS)
def test_a_server_that_takes_no_seed_is_asked_without_one(refusal, capsys):
    def answer(request):
        if "seed" in request:
            raise RefusedError(HTTPStatus.BAD_REQUEST, refusal)
        if "max_tokens" in request:
            raise RefusedError(HTTPStatus.BAD_REQUEST, "Use 'max_completion_tokens' instead.")
        return {"content": "yes"}

    with ScriptedChatServer(answer) as server, ChatServerPolicy(server.url, "m", max_tokens=9, seed=0) as policy:
        requests = [Request(i, CODEC.first_prompt("", (), "o"), stream=(i, 0)) for i in range(4)]
        for _ in range(2):
            assert [CODEC.decode_response(r.token_ids) for r in policy.respond(requests)] == ["yes"] * 4
    assert all("max_completion_tokens" in r and not {"seed", "max_tokens"} & r.keys() for r in server.requests[-4:])
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "takes no seed" in said


def test_a_refusal_for_another_reason_leaves_the_seed(capsys):
    refusals = ["The model 'doubao-seed-1.6' does not exist.", "Extra fields in {'seed': 3, 'x': 1}."]

    def answer(request):
        raise RefusedError(HTTPStatus.BAD_REQUEST, refusals[0])

    with ScriptedChatServer(answer) as server, ChatServerPolicy(server.url, "m", max_tokens=9, seed=0) as policy:
        request = Request(0, CODEC.first_prompt("", (), "o"), stream=(0, 0))
        while refusals:
            with pytest.raises(InfrastructureError, match="refused the request with HTTP 400"):
                policy.respond([request])
            assert "seed" in policy._question(request)[0]
            refusals.pop(0)
    assert ["seed" in request for request in server.requests] == [True, True, False]
    assert capsys.readouterr().err == ""


def test_a_server_that_refuses_is_asked_once():
    def answer(request):
        raise RefusedError(HTTPStatus.BAD_REQUEST, "max_tokens is too large")

    with (
        ScriptedChatServer(answer) as server,
        ChatServerPolicy(server.url, "tiny", max_tokens=9) as policy,
        pytest.raises(InfrastructureError, match="too large"),
    ):
        policy.respond([Request(0, CODEC.first_prompt("", (), "o"), stream=(0, 0))])
    assert len(server.requests) == 1


def test_arguments_outside_their_range():
    for settings, message in (({"max_tokens": 0}, "max_tokens must"), ({"temperature": -1}, "temperature must")):
        with pytest.raises(ValueError, match=message):
            ChatServerPolicy("http://127.0.0.1:1", "m", **({"max_tokens": 1} | settings))


def test_arguments_of_any_depth_are_read():
    # Just below where JSON can be read it cannot be written again.
    for depth in range(900, 1010):
        arguments = '{"x": ' + "[" * depth + "]" * depth + "}"
        message = {"content": "", "tool_calls": [{"function": {"name": "look", "arguments": arguments}}]}
        assert read_answer(json.dumps({"choices": [{"message": message}]})).startswith('<tool_call>{"name": "look"')
