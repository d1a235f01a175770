from __future__ import annotations

import itertools
import json
import math
import socket
import time
from email.utils import formatdate
from pathlib import Path

import pytest
from json_server import Server

from steppo_gym.errors import InfrastructureError
from steppo_gym.rollouts.codec import ByteCodec
from steppo_gym.rollouts.policies import Request
from steppo_gym.rollouts.pool import EnvFactory, EnvPool
from steppo_gym.rollouts.rollout import Assignment, collect
from steppo_gym.rollouts.served.completions import read_completion
from steppo_gym.rollouts.server_policy import ServerPolicy
from steppo_gym.storage import retrying_client as retrying_client
from steppo_gym.storage.retrying_client import read_retry_after

CODEC = ByteCodec()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(retrying_client, "FIRST_DELAY_SECONDS", 0.01)


def completion(body, **changes):
    """What vLLM answers; the model repeats the prompt backwards."""
    token_ids = list(reversed(body["prompt"]))
    logprobs = {"tokens": ["?"] * len(token_ids), "token_logprobs": [-0.25 * i for i in range(len(token_ids))]}
    choice = {
        "index": 0,
        "text": "?",
        "logprobs": logprobs,
        "finish_reason": "stop",
        "prompt_token_ids": body["prompt"],
        "token_ids": token_ids,
    }
    return {"id": "cmpl-1", "object": "text_completion", "model": body["model"], "choices": [choice | changes]}


def well(number, body):
    return 200, {}, completion(body)


def ask(server, *prompts, **options):
    options = {"max_tokens": 8, "timeout": 5.0, "max_retries": 2} | options
    with ServerPolicy(server if isinstance(server, str) else server.url, "tiny", **options) as policy:
        return policy.respond([Request(i, tuple(prompt)) for i, prompt in enumerate(prompts)])


def test_responses_are_the_servers_token_ids_in_the_order_of_the_requests():
    def slower_first(number, body):
        time.sleep(0.1 / body["prompt"][0])
        return well(number, body)

    prompts = [(i, 500, 7 * i) for i in range(1, 9)]
    with Server(slower_first) as server:
        responses = ask(server, *prompts)
    assert [response.token_ids for response in responses] == [prompt[::-1] for prompt in prompts]
    assert all(response.log_probs == (0.0, -0.25, -0.5) for response in responses)


def test_the_request_says_all_that_decides_the_distribution():
    with Server(well) as server:
        ask(server, (1, 2), temperature=0.6, top_p=0.9, stop_token_ids=(4, 5), max_tokens=17)
    (body,) = server.bodies
    assert server.paths == ["/v1/completions"]
    assert body["prompt"] == [1, 2]
    expected = {
        "model": "tiny",
        "max_tokens": 17,
        "temperature": 0.6,
        "top_p": 0.9,
        "stop_token_ids": [4, 5],
        "return_token_ids": True,
        "return_tokens_as_token_ids": True,
        "top_k": -1,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
    }
    assert expected.items() <= {name: value for name, value in body.items()}.items()
    assert "seed" not in body


@pytest.mark.parametrize("ending", ["", "/", "/v1", "/v1/"])
def test_the_address_may_end_in_v1(ending):
    with Server(well) as server:
        ask(server.url + ending, (1,))
    assert server.paths == ["/v1/completions"]


def test_the_api_key_is_read_from_the_environment_and_never_shown(monkeypatch):
    monkeypatch.setenv("MY_KEY", "secret-key")
    with Server(lambda number, body: (401, {}, {"error": {"message": "wrong key"}})) as server:
        with pytest.raises(InfrastructureError, match="HTTP 401: 'wrong key'") as caught:
            ask(server.url.replace("//", "//user:password@"), (1,), api_key_env="MY_KEY")
        assert len(server.bodies) == 1
    assert "secret-key" not in str(caught.value)
    assert "password" not in str(caught.value)
    with Server(well) as server:
        ask(server, (1,), api_key_env="MY_KEY")
        ask(server, (1,), api_key_env="NO_SUCH_KEY")
    assert [headers.get("Authorization") for headers in server.headers] == ["Bearer secret-key", None]


def test_seeds_differ_between_requests_and_repeat_with_the_policy():
    def run(seed):
        with Server(well) as server, ServerPolicy(server.url, "tiny", max_tokens=8, seed=seed) as policy:
            for _ in range(2):
                policy.respond([Request(i, (9, i)) for i in range(3)])
        # Requests arrive in any order within a call.
        calls = server.bodies[:3], server.bodies[3:]
        return [body["seed"] for call in calls for body in sorted(call, key=lambda body: body["prompt"])]

    seeds = run(5)
    assert len(set(seeds)) == 6
    assert seeds == run(5)
    assert not set(seeds) & set(run(6))


def test_concurrency_is_bounded():
    def slowly(number, body):
        time.sleep(0.05)
        return well(number, body)

    with Server(slowly) as server:
        ask(server, *[(i,) for i in range(12)], max_concurrency=3)
    assert len(server.bodies) == 12
    assert server.most_active == 3


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_passing_trouble_is_tried_again(quick, status):
    def recovers(number, body):
        return (status, {}, "Internal Server Error") if number <= 2 else well(number, body)

    with Server(recovers) as server:
        assert ask(server, (1, 2))[0].token_ids == (2, 1)
    assert len(server.bodies) == 3
    assert server.bodies[0] == server.bodies[2]


def test_a_retried_request_keeps_its_seed(quick):
    def recovers(number, body):
        return (503, {}, "") if number == 1 else well(number, body)

    with Server(recovers) as server:
        ask(server, (1, 2), seed=1)
    assert server.bodies[0]["seed"] == server.bodies[1]["seed"]


def test_delays_grow(monkeypatch):
    monkeypatch.setattr(retrying_client, "FIRST_DELAY_SECONDS", 0.1)
    times = []

    def fails(number, body):
        times.append(time.monotonic())
        return 500, {}, ""

    with Server(fails) as server, pytest.raises(InfrastructureError):
        ask(server, (1,), max_retries=3)
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert len(gaps) == 3
    assert all(gap >= 0.05 * 2**i for i, gap in enumerate(gaps))


def test_retry_after_is_obeyed(quick):
    def busy(number, body):
        return (429, {"Retry-After": "1"}, "") if number == 1 else well(number, body)

    begun = time.monotonic()
    with Server(busy) as server:
        ask(server, (1,))
    assert 1.0 <= time.monotonic() - begun < 30.0


def test_retry_after_forms():
    assert read_retry_after("2.5") == 2.5
    assert read_retry_after("-3") == 0.0
    assert 55 < read_retry_after(formatdate(time.time() + 60, usegmt=True)) <= 60
    assert read_retry_after(formatdate(time.time() - 60, usegmt=True)) == 0.0
    assert [read_retry_after(text) for text in (None, "", "soon", "nan", "inf")] == [None] * 5


def test_a_server_that_stays_broken_is_given_up(quick):
    with Server(lambda number, body: (500, {}, {"error": {"message": "out of memory"}})) as server:
        with pytest.raises(
            InfrastructureError, match=r"no response in 3 attempts.*HTTP 500: 'out of memory'"
        ) as caught:
            ask(server, (1,))
        assert len(server.bodies) == 3
    assert caught.value.boundary == "model"


def test_a_slow_server_times_out(quick):
    def sleeps(number, body):
        time.sleep(0.6)
        return well(number, body)

    with Server(sleeps) as server, pytest.raises(InfrastructureError, match=r"2 attempts.*ReadTimeout.*raise timeout"):
        ask(server, (1,), timeout=0.2, max_retries=1)


def test_a_slow_server_is_waited_for():
    def sleeps(number, body):
        time.sleep(0.5)
        return well(number, body)

    with Server(sleeps) as server:
        assert ask(server, (1, 2))[0].token_ids == (2, 1)


def test_a_server_that_is_down(quick):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(InfrastructureError, match=r"ConnectError.*Check that the server runs"):
        ask(f"http://127.0.0.1:{port}", (1,))


def test_the_first_failure_stops_the_waiting_of_the_others(monkeypatch):
    monkeypatch.setattr(retrying_client, "FIRST_DELAY_SECONDS", 500.0)

    def one_is_refused(number, body):
        return (400, {}, {"message": "prompt too long"}) if body["prompt"] == [3] else (503, {}, "")

    begun = time.monotonic()
    with Server(one_is_refused) as server, pytest.raises(InfrastructureError, match="HTTP 400: 'prompt too long'"):
        ask(server, *[(i,) for i in range(6)], max_retries=5)
    assert time.monotonic() - begun < 60.0


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ("<html><body>Welcome</body></html>", "Expected JSON from the server, found '<html>.*Check the address"),
        ('{"choices": [{"tok', "Expected JSON"),
        ("[" * 100_000, "Expected JSON"),
        ([], "Expected one choice"),
        ({"object": "list"}, "Expected one choice"),
        ({"choices": []}, "Expected one choice"),
        ({"choices": ["x"]}, "Expected one choice"),
        ({"token_ids": None}, "no token ids.*vLLM 0.10.2"),
        ({"token_ids": "12"}, "no token ids"),
        ({"token_ids": [1, "2"]}, "no token ids"),
        ({"token_ids": [1, True]}, "no token ids"),
        ({"token_ids": [1, -2]}, "no token ids"),
        ({"token_ids": [1, 2**31]}, "no token ids"),
        ({"token_ids": []}, "no token, not even one that ends it"),
        ({"token_ids": [1] * 9}, "answered with 9 tokens, asked for at most 8"),
        ({"token_ids": [1, 40, 2]}, "token 40, the model here has 40. Does it serve another?"),
        ({"finish_reason": "abort"}, 'finish_reason "stop" or "length", found \'abort\''),
        ({"finish_reason": None}, "finish_reason"),
        ({"prompt_token_ids": [2, 3]}, "changed the prompt: 3 tokens were sent, it used 2"),
        ({"logprobs": None}, "one log-probability for each of 3 tokens, found None"),
        ({"logprobs": {"token_logprobs": [-1.0]}}, "one log-probability for each of 3 tokens"),
        ({"logprobs": {"token_logprobs": [-1.0, None, -1.0]}}, "one log-probability"),
        ({"logprobs": {"token_logprobs": [-1.0, float("nan"), -1.0]}}, "one log-probability"),
    ],
)
def test_answers_that_make_no_sense_are_errors_and_not_responses(answer, message):
    def nonsense(number, body):
        changes = isinstance(answer, dict) and "choices" not in answer and "object" not in answer
        return 200, {}, completion(body, **answer) if changes else answer

    with Server(nonsense) as server, pytest.raises(InfrastructureError, match=message) as caught:
        ask(server, (1, 2, 3), vocab_size=40)
    assert caught.value.boundary == "model"
    assert len(str(caught.value)) < 600
    assert len(server.bodies) == 1


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({}, True),
        ({"temperature": 0.7}, False),
        ({"top_p": 0.9}, False),
        ({"temperature": 0.7, "top_p": 0.9, "processed_log_probs": True}, True),
    ],
)
def test_log_probs_of_another_distribution_are_not_recorded(options, kept):
    with Server(well) as server:
        (response,) = ask(server, (1, 2), **options)
    assert response.log_probs == ((0.0, -0.25) if kept else None)


def test_a_prompt_the_server_does_not_repeat_is_not_checked():
    body = completion({"prompt": [1, 2], "model": "tiny"})
    del body["choices"][0]["prompt_token_ids"]
    assert read_completion(json.dumps(body), (1, 2), max_tokens=2, keep_log_probs=False).token_ids == (2, 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"base_url": "localhost:8000"}, "address must start with http"),
        ({"max_tokens": 0}, "max_tokens must be at least 1, got 0"),
        ({"max_concurrency": 0}, "max_concurrency must be at least 1"),
        ({"temperature": -0.1}, "temperature must be 0 or more"),
        ({"temperature": math.nan}, "temperature must be 0 or more, got nan"),
        ({"max_retries": -1}, "max_retries must be 0 or more"),
        ({"top_p": 0.0}, "top_p must be above 0 and at most 1"),
        ({"timeout": 0.0}, "timeout must be positive"),
        ({"timeout": math.nan}, "timeout must be positive, got nan"),
    ],
)
def test_arguments_outside_their_range(options, message):
    with pytest.raises(ValueError, match=message):
        ServerPolicy(**({"base_url": "http://127.0.0.1:1", "model": "tiny", "max_tokens": 1} | options))


def test_the_last_token_of_the_model_and_the_longest_response_are_taken():
    with Server(well) as server:
        (response,) = ask(server, (39, *[1] * 7), vocab_size=40)
    assert response.token_ids == (*[1] * 7, 39)


@pytest.mark.parametrize("token_ids", [[*b"go", 257], [*b"go", 256, 256]])
def test_an_answer_that_was_not_asked_for_costs_its_episode_alone(monkeypatch, token_ids):
    monkeypatch.syspath_prepend(str(Path(__file__).parent))

    def walks(number, body):
        ids = token_ids if number == 2 else [*b"go", 256]
        return 200, {}, completion(body, token_ids=ids, logprobs={"token_logprobs": [-1.0] * len(ids)})

    spec = EnvFactory("rollout_envs:steppo-test/Walk-v0")
    with (
        Server(walks) as server,
        ServerPolicy(server.url, "tiny", max_tokens=3, vocab_size=CODEC.vocab_size) as policy,
        EnvPool(spec, num_slots=1) as pool,
    ):
        first, second = collect(policy, pool, CODEC, [Assignment(f"walk-{n}", seed=n) for n in (2, 3)]).episodes
    assert (first.ended, first.num_steps) == ("failed", 1)
    assert first.failure is not None and first.failure.boundary == "model"
    assert (second.ended, second.num_steps) == ("terminated", 3)


def test_a_rollout_against_a_server_that_fails_in_between(quick, monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent))

    def walks(number, body):
        if number == 3:
            return 500, {}, ""
        token_ids = [*b"go", 256]
        return 200, {}, completion(body, token_ids=token_ids, logprobs={"token_logprobs": [-1.0, -2.0, -3.0]})

    spec = EnvFactory("rollout_envs:steppo-test/Walk-v0")
    assignments = [Assignment(f"walk-{length}", seed=length) for length in (3, 1, 2)]
    with (
        Server(walks) as server,
        ServerPolicy(server.url, "tiny", max_tokens=3) as policy,
        EnvPool(spec, num_slots=2, num_workers=1) as pool,
    ):
        rollout = collect(policy, pool, CODEC, assignments)
    assert [(episode.ended, episode.num_steps) for episode in rollout.episodes] == [
        ("terminated", 3),
        ("terminated", 1),
        ("terminated", 2),
    ]
    assert rollout.episodes[0].steps[2].log_probs == (-1.0, -2.0, -3.0)
    assert len(server.bodies) == 7
