"""Policies on a token-level server: every answer reaches its asker, and what breaks costs its own episodes."""

from __future__ import annotations

import itertools
import json
import threading
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest
from json_server import Server

from steppo_gym.errors import InfrastructureError, SteppoGymError
from steppo_gym.rollouts.codec import ByteCodec
from steppo_gym.rollouts.policies import Request, StreamingPolicy
from steppo_gym.rollouts.pool import EnvFactory, EnvPool
from steppo_gym.rollouts.rollout import Assignment, collect
from steppo_gym.rollouts.served.context_length import context_length
from steppo_gym.rollouts.served.server_group import MAX_FAILURES, ServerGroup
from steppo_gym.rollouts.served.weights import INDEX, VERSION_FILE, load_weights, write_weights
from steppo_gym.rollouts.server_policy import ServerPolicy
from steppo_gym.storage import retrying_client
from steppo_gym.testing.completions_server import CompletionsServer, TableModel
from steppo_gym.trainers.policy.servers import PolicyServers

CODEC = ByteCodec()


@pytest.fixture(autouse=True)
def loopback(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setattr(retrying_client, "FIRST_DELAY_SECONDS", 0.01)


def fixed(folder):
    """The table of the seed that a folder holds, of seed 0 before there is one."""
    return TableModel(0 if folder is None else json.loads((folder / "seed.json").read_text()), num_tokens=256)


def policy_on(server, **options):
    options = {"max_tokens": 5, "seed": 1, "timeout": 10.0, "max_retries": 1, "max_concurrency": 16} | options
    return ServerPolicy(server.url, "fake", **options)


def drain(policy, requests):
    for request in requests:
        policy.submit(request)
    found = {}
    while len(found) < len(requests):
        found |= {answer.slot: answer.outcome for answer in policy.poll(1.0)}
    return found


def test_every_answer_reaches_its_asker_with_its_own_log_probs():
    table = TableModel(0, num_tokens=256).table
    requests = [Request(slot, (7, slot), stream=(slot, 0)) for slot in range(24)]
    with CompletionsServer(fixed, most_delay=0.05) as server, policy_on(server) as policy:
        assert isinstance(policy, StreamingPolicy)
        found = drain(policy, requests)
        in_batch = policy.respond(requests)
        assert policy.poll(0.0) == []
    assert [found[slot] for slot in range(24)] == in_batch
    for slot, response in found.items():
        before = (slot, *response.token_ids[:-1])
        expected = [table[first, second] for first, second in zip(before, response.token_ids, strict=True)]
        assert response.log_probs == pytest.approx(expected)
    order = [request["prompt"][1] for request in server.finished[:24]]
    assert sorted(order) == list(range(24)) and order != sorted(order), "the fake has to mix up its answers"


def test_clients_with_different_numbers_of_requests_share_a_server_and_mix_nothing_up():
    counts = {0: 40, 1: 3, 2: 17}

    def run(rank):
        with policy_on(server, seed=rank) as policy:
            requests = [Request(slot, (rank, slot), stream=(slot, 0)) for slot in range(counts[rank])]
            return drain(policy, requests)

    with CompletionsServer(fixed) as server:
        with ThreadPoolExecutor(3) as threads:
            together = list(threads.map(run, counts))
        alone = [run(rank) for rank in counts]
    assert together == alone
    assert [len(found) for found in together] == [40, 3, 17]


def test_a_response_follows_from_seed_and_stream_and_not_from_the_order_of_asking():
    requests = [Request(slot, (9,), stream=(slot, 2)) for slot in range(6)]
    with CompletionsServer(fixed) as server:
        found = []
        for order, seed in ((1, 5), (-1, 5), (1, 6)):
            with policy_on(server, seed=seed) as policy:
                found.append(drain(policy, requests[::order]))
    assert found[0] == found[1] != found[2]
    assert len({response.token_ids for response in found[0].values()}) > 1


def test_an_episode_does_not_depend_on_the_schedule():
    tasks = [Assignment(f"train-{i}", seed=i) for i in range(12)]
    records = []
    with CompletionsServer(fixed) as server:
        for streaming, num_slots in ((False, 4), (True, 5)):
            pool = EnvPool(EnvFactory("steppo/KeyDoor-v0"), num_slots=num_slots)
            with pool, policy_on(server) as policy:
                episodes = collect(policy, pool, CODEC, tasks, streaming=streaming).episodes
            records.append([[(s.prompt_ids, s.response_ids, s.log_probs) for s in e.steps] for e in episodes])
    assert records[0] == records[1]


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "weights"


def give(folder, seed, version):
    write_weights(folder, lambda new: (new / "seed.json").write_text(str(seed)), version)


def test_weights_that_were_pushed_are_those_used(folder):
    with CompletionsServer(fixed, folder=folder) as server:
        for version, seed in ((4, 11), (5, 12)):
            give(folder, seed, version)
            load_weights(server.url)
            with policy_on(server, version=version) as policy:
                (response,) = policy.respond([Request(0, (3,), stream=(0, 0))])
            path = (3, *response.token_ids)
            expected = [TableModel(seed, num_tokens=256).table[pair] for pair in itertools.pairwise(path)]
            assert response.log_probs == pytest.approx(expected)
            assert response.version == version
    assert server.commands == ["/collective_rpc", "/reset_prefix_cache"] * 2
    assert json.loads((folder / VERSION_FILE).read_text()) == {"version": 5}


class Ranks:
    """What processes gather from each other, for threads in their place."""

    def __init__(self, world):
        self.barrier, self.given = threading.Barrier(world), [None] * world

    def gather_of(self, rank):
        def gather(value):
            self.given[rank] = value
            self.barrier.wait(10.0)
            everything = list(self.given)
            self.barrier.wait(10.0)
            return everything

        return gather


def test_ranks_that_share_one_server_get_their_own_answers_from_the_weights_pushed_once(folder):
    counts, ranks, table = {0: 24, 1: 5}, Ranks(2), TableModel(11, num_tokens=256).table

    def run(rank):
        servers = PolicyServers(
            [server.url],
            folder=folder,
            model=str(folder),
            context_tokens=None,
            rank=rank,
            world=2,
            gather=ranks.gather_of(rank),
        )
        servers.push(lambda new: (new / "seed.json").write_text("11"), 3)
        options = {"num_slots": 8, "max_tokens": 5, "vocab_size": 256, "temperature": 1.0, "seed": rank}
        with servers.policy(stop_token_ids=[], **options) as policy:
            return drain(policy, [Request(slot, (rank, slot), stream=(slot, 0)) for slot in range(counts[rank])])

    with CompletionsServer(fixed, folder=folder) as server, ThreadPoolExecutor(2) as threads:
        together = list(threads.map(run, counts))
    assert [len(found) for found in together] == [24, 5]
    assert server.commands == ["/collective_rpc", "/reset_prefix_cache"]
    for found in together:
        for slot, response in found.items():
            # After its own prompt, and by no other weights.
            expected = [table[pair] for pair in itertools.pairwise((slot, *response.token_ids))]
            assert response.log_probs == pytest.approx(expected)
            assert response.version == 3
    asked = [tuple(request["prompt"]) for request in server.requests]
    assert sorted(asked) == [(rank, slot) for rank, count in counts.items() for slot in range(count)]


@pytest.mark.parametrize(("length", "enough"), [(63, False), (64, True), (None, True)])
def test_a_server_whose_contexts_are_too_short_is_refused_by_all_processes(folder, length, enough):
    ranks = Ranks(2)

    def run(rank, addresses):
        options = {"folder": folder, "model": str(folder), "context_tokens": 64, "gather": ranks.gather_of(rank)}
        servers = PolicyServers(addresses, rank=rank, world=2, **options)
        try:
            servers.push(lambda new: (new / "seed.json").write_text("11"), 3)
        except SteppoGymError as error:
            return str(error)
        return ""

    with (
        CompletionsServer(fixed, folder=folder, max_model_len=64) as first,
        CompletionsServer(fixed, folder=folder, max_model_len=length) as second,
        ThreadPoolExecutor(2) as threads,
    ):
        said = list(threads.map(run, range(2), [[first.url, second.url]] * 2))
    expected = f"The server {second.url} takes contexts of 63 tokens, and those of this run have up to 64"
    assert said == ["", ""] if enough else all(line.startswith(expected) for line in said)


@pytest.mark.parametrize(
    ("status", "answer"),
    [
        (404, {"error": "no such route"}),
        (200, "up"),
        (200, []),
        (200, {"data": [{"id": "other", "max_model_len": 8}]}),
        (200, {"data": [{"id": "tiny"}]}),
        (200, {"data": [{"id": "tiny", "max_model_len": "8"}]}),
        (200, {"data": None}),
    ],
)
def test_a_server_that_does_not_say_how_long_its_contexts_may_be_is_taken(status, answer):
    with Server(lambda number, body: (status, {}, answer)) as server:
        assert context_length(server.url, "tiny") is None


def test_the_length_of_contexts_is_asked_for_with_the_key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    answer = {"data": [{"id": "other", "max_model_len": 8}, {"id": "tiny", "max_model_len": 9}]}
    with Server(lambda number, body: (200, {}, answer)) as server:
        assert context_length(server.url + "/v1/", "tiny") == 9
    assert server.paths == ["/v1/models"]
    assert server.headers[0]["Authorization"] == "Bearer secret"


def test_a_server_with_other_weights_is_found_out(folder):
    give(folder, 11, 4)
    with CompletionsServer(fixed, folder=folder) as server:
        load_weights(server.url)
        with policy_on(server, version=5) as policy:
            outcome = drain(policy, [Request(0, (3,))])[0]
    assert isinstance(outcome, InfrastructureError)
    assert "version 4 of the weights, expected 5" in outcome.message


def test_a_server_that_cannot_load_says_so():
    with CompletionsServer(fixed) as server, pytest.raises(InfrastructureError, match="reload_weights"):
        load_weights(server.url)


class HeldServer(CompletionsServer):
    """Answers when it may."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.asked, self.may_answer = threading.Event(), threading.Event()

    def _complete(self, request):
        self.asked.set()
        self.may_answer.wait(10.0)
        return super()._complete(request)


def test_a_server_that_cannot_forget_what_older_weights_computed_says_so(folder):
    give(folder, 11, 4)
    with HeldServer(fixed, folder=folder) as server, policy_on(server) as policy:
        policy.submit(Request(0, (3,), stream=(0, 0)))
        assert server.asked.wait(10.0)
        with pytest.raises(InfrastructureError, match="keeps what it has computed with older weights"):
            load_weights(server.url)
        server.may_answer.set()
        (answer,) = policy.poll(10.0)
        load_weights(server.url)
    assert answer.outcome.version == 4


def test_weights_are_replaced_without_a_trace_of_the_writing(folder):
    folder.mkdir()
    (folder / "tokenizer.json").write_text("kept")
    give(folder, 1, 1)
    give(folder, 2, 2)
    assert sorted(path.name for path in folder.parent.iterdir()) == ["weights"]
    assert sorted(path.name for path in folder.iterdir()) == ["seed.json", "tokenizer.json", VERSION_FILE]


def play_while(happening, *servers, num_episodes=60):
    """Episodes of KeyDoor on some servers; after the tenth, something happens."""
    ended = []

    def on_episode(episode):
        ended.append(episode)
        if len(ended) == 10:
            happening()

    policies = [policy_on(server) for server in servers]
    tasks = [Assignment(f"train-{i}", seed=i) for i in range(num_episodes)]
    with EnvPool(EnvFactory("steppo/KeyDoor-v0", {"max_steps": 4}), num_slots=8) as pool:
        group = ServerGroup(policies) if len(policies) > 1 else policies[0]
        try:
            return collect(group, pool, CODEC, tasks, on_episode=on_episode).episodes
        finally:
            for policy in policies:
                policy.close()


def test_a_killed_server_costs_its_episodes_and_its_slots_go_to_the_other(capfd):
    with CompletionsServer(fixed) as first, CompletionsServer(fixed) as second:
        episodes = play_while(first.kill, first, second)
    failed = [episode for episode in episodes if episode.failure]
    # Four slots were its own.
    assert 1 <= len(failed) <= 4 + MAX_FAILURES
    assert {episode.failure.boundary for episode in failed} == {"model"}
    assert "A server is not asked any more" in capfd.readouterr().err


def test_a_server_that_comes_back_in_time_costs_nothing(monkeypatch):
    monkeypatch.setattr(retrying_client, "FIRST_DELAY_SECONDS", 0.3)

    def again():
        server.kill()
        threading.Timer(0.1, server.start).start()

    with CompletionsServer(fixed) as server:
        episodes = play_while(again, server)
    assert not [episode.failure for episode in episodes if episode.failure]


def test_the_only_server_killed_ends_the_rollout_with_its_reason():
    with CompletionsServer(fixed) as server, pytest.raises(InfrastructureError, match="gave no response in 2 attempts"):
        play_while(server.kill, server)


def test_a_group_answers_in_batches_too():
    requests = [Request(slot, (5, slot), stream=(slot, 0)) for slot in range(5)]
    with (
        CompletionsServer(fixed) as first,
        CompletionsServer(fixed) as second,
        policy_on(first) as one,
        policy_on(second) as two,
    ):
        group = ServerGroup([one, two])
        assert group.respond(requests) == one.respond(requests)
        second.kill()
        with pytest.raises(InfrastructureError):
            group.respond(requests)
        assert group.poll(0.0) == []
    with pytest.raises(ValueError, match="at least one policy"):
        ServerGroup([])


def test_dropped_requests_are_never_answered():
    with CompletionsServer(fixed, most_delay=0.1) as server, policy_on(server) as policy:
        policy.submit(Request(0, (1,), stream=(0, 0)))
        policy.drop()
        assert policy.poll(0.2) == []
        assert set(drain(policy, [Request(1, (1,), stream=(1, 0))])) == {1}


def test_a_sampler_that_is_wrong_on_purpose_reports_what_it_sampled_from():
    def uniform(log_probs):
        return np.full_like(log_probs, -np.log(len(log_probs)))

    with CompletionsServer(fixed, distort=uniform) as server, policy_on(server) as policy:
        (response,) = policy.respond([Request(0, (1,))])
    assert response.log_probs == pytest.approx([-np.log(256)] * 5)


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/v1/completions", {"prompt": [], "max_tokens": 1, "temperature": 1.0}, 400),
        ("/v1/completions", {"prompt": ["text"], "max_tokens": 1, "temperature": 1.0}, 400),
        ("/v1/completions", {"prompt": [1], "max_tokens": 0, "temperature": 1.0}, 400),
        ("/v1/chat/completions", {}, 404),
        ("/v1/completions", {"model": "m", "prompt": [1] * 5, "max_tokens": 4, "temperature": 1.0}, 400),
        ("/v1/completions", {"model": "m", "prompt": [1] * 4, "max_tokens": 4, "temperature": 1.0}, 200),
        ("/collective_rpc", {"method": "rm"}, 400),
    ],
)
def test_the_fake_refuses_what_a_server_would(path, body, status):
    with CompletionsServer(fixed, max_model_len=8) as server:
        assert httpx.post(server.url + path, json=body).status_code == status


@pytest.mark.parametrize("parts", [("model.safetensors",), ("model-00001-of-00003.safetensors", INDEX)])
def test_no_weights_of_before_are_left_beside_new_ones(tmp_path, parts):
    # Engines read what an index names, whatever else lies there.
    before = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", INDEX, "pytorch_model.bin")
    for name in (*before, "tokenizer.json", "config.json"):
        (tmp_path / name).write_text("before")
    write_weights(tmp_path, lambda new: [(new / name).write_text("new") for name in (*parts, "config.json")], 3)
    found = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert found.pop(VERSION_FILE) == '{"version": 3}'
    assert found == dict.fromkeys((*parts, "config.json"), "new") | {"tokenizer.json": "before"}
