"""Policies on a real vLLM server with a tiny random model, where its command is installed.

STEPPO_VLLM is the command if it is not on the path, such as that of another environment: vLLM takes other versions of
transformers than this package has been tested with.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest
import torch
from served_model import loader
from test_token_servers import drain
from transformers import Qwen3Config, Qwen3ForCausalLM

from steppo_gym.errors import InfrastructureError
from steppo_gym.rollouts.codec import ByteCodec
from steppo_gym.rollouts.policies import Request
from steppo_gym.rollouts.pool import EnvFactory, EnvPool
from steppo_gym.rollouts.rollout import Assignment, collect
from steppo_gym.rollouts.served.server_group import MAX_FAILURES, ServerGroup
from steppo_gym.rollouts.served.weights import load_weights, write_weights
from steppo_gym.rollouts.server_policy import ServerPolicy
from steppo_gym.storage import retrying_client
from steppo_gym.testing.completions_server import CompletionsServer

COMMAND = os.environ.get("STEPPO_VLLM") or shutil.which("vllm")
START_SECONDS = float(os.environ.get("STEPPO_VLLM_SECONDS", "300"))
CODEC = ByteCodec()

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.skipif(COMMAND is None, reason="vLLM is not installed, and STEPPO_VLLM names no command"),
    pytest.mark.timeout(START_SECONDS + 300),
]


def random_model(seed):
    """Whose every token has a probability of its own after every context."""
    config = Qwen3Config(
        # Those of `ByteCodec` and some.
        vocab_size=320,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        # What attention on processors takes.
        head_dim=32,
        max_position_embeddings=1024,
        # On processors it keeps a copy of the head, and does not make another when the embeddings are loaded anew.
        tie_word_embeddings=False,
        initializer_range=0.2,
        bos_token_id=None,
        eos_token_id=0,
        pad_token_id=1,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Qwen3ForCausalLM(config).eval()


def free_port():
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


class Served:
    """The process, its address, and the folder of its weights."""

    def __init__(self, folder, log):
        self.folder, self.log, port = folder, log, free_port()
        self.url = f"http://127.0.0.1:{port}"
        command = [
            *(COMMAND, "serve", str(folder), "--host", "127.0.0.1", "--port", str(port)),
            *("--logprobs-mode", "processed_logprobs", "--skip-tokenizer-init", "--served-model-name", "tiny"),
            *("--dtype", "float32", "--enforce-eager", "--max-model-len", "1024", "--max-num-seqs", "32"),
        ]
        own = {"VLLM_SERVER_DEV_MODE": "1", "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
        offline = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}
        # Its sampler compiles C++ at the first request for log-probabilities, which a busy machine takes minutes for.
        own |= {"TORCH_COMPILE_DISABLE": "1", "VLLM_EXECUTE_MODEL_TIMEOUT_SECONDS": str(int(START_SECONDS))}
        with log.open("w") as out:
            self.process = subprocess.Popen(
                command,
                env={**os.environ, **own, **offline},
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait_until_ready(self):
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end and self.process.poll() is None:
            try:
                if httpx.get(self.url + "/health", timeout=5.0).status_code == 200:
                    return
            except httpx.HTTPError:
                pass
            time.sleep(0.5)
        pytest.fail(f"vLLM did not start in {START_SECONDS:.0f} s:\n{self.log.read_text()[-3000:]}")

    def kill(self):
        """As what is out of memory is: without a word to anybody."""
        self.process.kill()
        self.process.wait()

    def end(self):
        """With the engine's own processes, which may outlive it."""
        last = time.monotonic() + 60.0
        self._signal(signal.SIGTERM)
        while self._signal(0) and time.monotonic() < last:
            self.process.poll()
            time.sleep(0.1)
        self._signal(signal.SIGKILL)

    def _signal(self, number):
        """To all of them; False if there are none."""
        try:
            os.killpg(self.process.pid, number)
        except ProcessLookupError:
            return False
        return True


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vllm")
    random_model(0).save_pretrained(folder / "weights")
    served = Served(folder / "weights", folder / "log.txt")
    try:
        served.wait_until_ready()
        yield served
    finally:
        served.end()


@pytest.fixture(autouse=True)
def loopback(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setattr(retrying_client, "FIRST_DELAY_SECONDS", 0.01)


def policy_on(served, **options):
    return ServerPolicy(served.url, "tiny", **{"max_tokens": 12, "seed": 1, "max_retries": 1, **options})


def log_probs_under(model, request, response, temperature=1.0):
    """Of the response's tokens after the prompt, by a plain forward pass."""
    ids = [*request.prompt_ids, *response.token_ids]
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0].double() / temperature
    first = len(request.prompt_ids)
    return logits.log_softmax(-1)[range(first - 1, len(ids) - 1), ids[first:]].numpy()


def largest_gap(model, requests, found, temperature=1.0):
    """Between the log-probabilities that were reported and those of the model after each request's own prompt."""
    gaps = []
    for request in requests:
        response = found[request.slot]
        assert response.log_probs is not None
        own = log_probs_under(model, request, response, temperature)
        gaps.append(np.abs(own - response.log_probs).max())
    return max(gaps)


def requests_of(rank, number):
    """With prompts of different lengths that nobody else has."""
    return [
        Request(slot, (10 + rank, *range(20, 21 + slot % 7), 40 + slot), stream=(slot, 0)) for slot in range(number)
    ]


def test_clients_with_different_numbers_of_requests_get_their_own_answers(served):
    counts, model = {0: 24, 1: 2, 2: 9}, random_model(0)

    def run(rank):
        with policy_on(served, seed=rank) as policy:
            return drain(policy, requests_of(rank, counts[rank]))

    with ThreadPoolExecutor(3) as threads:
        together = list(threads.map(run, counts))
    assert [len(found) for found in together] == [24, 2, 9]
    for rank, found in enumerate(together):
        assert largest_gap(model, requests_of(rank, counts[rank]), found) < 1e-4
    assert len({response.token_ids for found in together for response in found.values()}) > 25


def test_log_probs_are_those_of_the_tempered_distribution(served):
    requests = requests_of(0, 6)
    with policy_on(served, temperature=0.7, processed_log_probs=True) as policy:
        found = drain(policy, requests)
    assert largest_gap(random_model(0), requests, found, temperature=0.7) < 1e-4
    assert largest_gap(random_model(0), requests, found) > 0.1


def test_episodes_are_played_on_it(served):
    tasks = [Assignment(f"train-{i}", seed=i) for i in range(12)]
    with EnvPool(EnvFactory("steppo/KeyDoor-v0", {"max_steps": 2}), num_slots=5) as pool, policy_on(served) as policy:
        rollout = collect(policy, pool, CODEC, tasks, max_prompt_tokens=1000, streaming=True)
    assert [episode.failure for episode in rollout.episodes] == [None] * 12
    assert {episode.ended for episode in rollout.episodes} == {"truncated"}
    assert all(step.log_probs is not None for episode in rollout.episodes for step in episode.steps)


def test_a_response_follows_from_seed_and_stream_and_not_from_the_order_of_asking(served):
    requests, found = requests_of(0, 12), []
    for order, seed in ((1, 5), (-1, 5), (1, 6)):
        with policy_on(served, seed=seed) as policy:
            found.append({slot: r.token_ids for slot, r in drain(policy, requests[::order]).items()})
    assert found[0] == found[1]
    assert all(found[0][slot] != found[2][slot] for slot in range(12))


def test_responses_end_with_the_token_that_stops_them(served):
    requests = requests_of(0, 16)
    with policy_on(served, max_tokens=100, stop_token_ids=tuple(range(100, 320))) as policy:
        found = drain(policy, requests)
    for response in found.values():
        # Token 0 is the model's own end.
        assert all(0 < token < 100 for token in response.token_ids[:-1])
        assert response.token_ids[-1] >= 100 or response.token_ids[-1] == 0
    assert largest_gap(random_model(0), requests, found) < 1e-4


def give(served, seed, version):
    write_weights(served.folder, random_model(seed).save_pretrained, version)
    load_weights(served.url)


def test_weights_that_were_pushed_are_those_it_samples_with(served):
    # The same prompts each time, two blocks of its cache long.
    long = [Request(slot, tuple(2 + (slot * i) % 250 for i in range(1, 301)), stream=(slot, 0)) for slot in range(5, 8)]
    requests, gaps = requests_of(0, 5) + long, []
    for version, seed in ((1, 11), (2, 0)):
        give(served, seed, version)
        with policy_on(served, version=version) as policy:
            found = drain(policy, requests)
        gaps.append([largest_gap(random_model(other), requests, found) for other in (seed, 11 - seed)])
        assert {response.version for response in found.values()} == {version}
    assert max(own for own, _ in gaps) < 1e-4
    assert min(other for _, other in gaps) > 0.1


def test_a_server_that_cannot_forget_what_older_weights_computed_says_so(served):
    with policy_on(served, max_tokens=400) as policy:
        policy.submit(Request(0, (3, 4, 5), stream=(0, 0)))
        with pytest.raises(InfrastructureError, match="keeps what it has computed with older weights"):
            load_weights(served.url)
        while not policy.poll(10.0):
            pass
    load_weights(served.url)


def test_a_killed_server_costs_its_episodes_and_its_slots_go_to_the_other(served, capfd):
    """The other is ours, with the same weights, so that one vLLM is enough."""
    ended = []

    def on_episode(episode):
        ended.append(episode)
        if len(ended) == 6:
            served.kill()

    tasks = [Assignment(f"train-{i}", seed=i) for i in range(40)]
    with (
        CompletionsServer(loader(served.folder)) as other,
        policy_on(served, max_tokens=64, timeout=60.0) as first,
        policy_on(other, max_tokens=3) as second,
        EnvPool(EnvFactory("steppo/KeyDoor-v0", {"max_steps": 2}), num_slots=8) as pool,
    ):
        group = ServerGroup([first, second])
        rollout = collect(group, pool, CODEC, tasks, max_prompt_tokens=1000, on_episode=on_episode)
        # The last server, which is lost: its requests are answered with the reason.
        outcome = drain(first, [Request(0, (3,))])[0]
    failed = [episode for episode in rollout.episodes if episode.failure]
    assert len(rollout.episodes) == 40
    # Four slots were its own.
    assert 1 <= len(failed) <= 4 + MAX_FAILURES
    assert {episode.failure.boundary for episode in failed} == {"model"}
    assert "A server is not asked any more" in capfd.readouterr().err
    assert isinstance(outcome, InfrastructureError)
    assert "gave no response in 2 attempts" in outcome.message
