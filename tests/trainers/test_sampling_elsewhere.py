"""Training on what servers, other distributions or older weights have sampled."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
import torch
from peft import LoraConfig
from served_model import loader
from trainer_runs import change, fixed_metrics, played, relative_difference, settings_of, untimed, weights
from transformers import Qwen3ForCausalLM

from steppo_gym.credit.rows import ABSENT, build_rows
from steppo_gym.errors import SamplingGapError, SteppoGymError
from steppo_gym.rollouts.episode import Episode, Step
from steppo_gym.rollouts.pool import EnvFactory
from steppo_gym.testing.completions_server import CompletionsServer
from steppo_gym.trainers.ahead import Ahead, tasks_of
from steppo_gym.trainers.evaluation import EvaluationSet
from steppo_gym.trainers.policy.sampling_check import GAP_TOKENS, rows_gap
from steppo_gym.trainers.policy.servers import share
from steppo_gym.trainers.step_data import sampled_log_probs

SMALL = {"iterations": 2, "episodes_per_iteration": 4, "max_completion_length": 4, "learning_rate": 1e-2}


PENALTY = EnvFactory("steppo/KeyDoor-v0", {"context": "append", "max_steps": 4, "invalid_action_reward": -0.1})
"""A policy that knows nothing gets something to learn from."""


@pytest.fixture(autouse=True)
def loopback(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def server(random_folder, tmp_path):
    with CompletionsServer(loader(random_folder), folder=tmp_path / "served") as server:
        yield server


@pytest.fixture
def random_model(random_folder):
    return lambda: Qwen3ForCausalLM.from_pretrained(random_folder)


def served(server, tmp_path, **settings):
    return {
        "spec": PENALTY,
        "policy_servers": server.url,
        "policy_servers_folder": str(tmp_path / "served"),
        **SMALL,
        **settings,
    }


def test_the_gap_is_that_of_responses_where_the_longest_row_has_none():
    """A long prompt in which an episode was cut off is a row of its own, without a token that was sampled."""
    step = Step((1, 2, 3), (4, 5), (-1.0, -2.0), "", reward=0.0, state_key="")
    episode = Episode("task", (step,), "truncated", final_prompt_ids=(6,) * GAP_TOKENS)
    rows = build_rows([episode])
    assert max(rows, key=len).token_index.max() == ABSENT
    sampled = sampled_log_probs([episode])
    assert rows_gap(sampled, rows, lambda rows, number: sampled - 0.5, lambda part: [part]) == 0.5
    assert rows_gap(np.zeros(0), [], lambda rows, number: np.zeros(0), lambda part: [part]) == 0.0


def logged(trainer, name):
    return [entry[name] for entry in trainer.state.log_history if name in entry]


def versions(trainer, iteration):
    return {step.version for episode in played(trainer, iteration) for step in episode.steps}


def test_a_server_samples_with_the_weights_that_were_trained(server, make_trainer, random_model, tmp_path):
    trainer = make_trainer(model=random_model(), **served(server, tmp_path, updates_per_iteration=2))
    trainer.train()
    assert [versions(trainer, iteration) for iteration in (1, 2)] == [{0}, {2}]
    # The log-probabilities that the server reports are those of the trainer's own forward, before and after updates.
    assert max(logged(trainer, "sampling_gap")) < 1e-4
    assert len(logged(trainer, "sampling_gap")) == 2
    assert max(logged(trainer, "sampler_kl")) < 1e-6
    assert server.commands.count("/collective_rpc") == 2
    assert change(weights(random_model()), weights(trainer.model)).norm() > 0.01


@pytest.fixture
def stale_server(server, monkeypatch):
    """Keeps its first weights, and says that it has loaded others."""
    monkeypatch.setattr(server, "_load", lambda folder: server._model)
    return server


def test_a_server_that_keeps_its_old_weights_ends_a_run(stale_server, make_trainer, random_model, tmp_path):
    trainer = make_trainer(model=random_model(), **served(stale_server, tmp_path))
    with pytest.raises(SamplingGapError, match="loads all of its weights anew"):
        trainer.train()
    (first,) = logged(trainer, "sampling_gap")
    assert first < 1e-4


def test_where_it_is_corrected_it_is_seen(stale_server, make_trainer, random_model, tmp_path):
    settings = served(stale_server, tmp_path, off_policy_correction="step_truncate")
    trainer = make_trainer(model=random_model(), **settings)
    trainer.train()
    first, second = logged(trainer, "sampling_gap")
    assert first < 1e-4 < 1e-3 < second


def flattened(log_probs):
    """Half of every probability is spread over all tokens."""
    return np.log(0.5 * np.exp(log_probs) + 0.5 / len(log_probs))


def test_a_sampler_of_another_distribution_ends_a_run_without_correction(make_trainer, random_folder, tmp_path):
    with CompletionsServer(loader(random_folder), folder=tmp_path / "served", distort=flattened) as wrong:
        trainer = make_trainer(model=Qwen3ForCausalLM.from_pretrained(random_folder), **served(wrong, tmp_path))
        with pytest.raises(SamplingGapError, match="another distribution than it is trained on"):
            trainer.train()


@pytest.mark.parametrize("kind", ["token_truncate", "step_truncate", "sequence_mask"])
def test_a_correction_weighs_the_terms_of_the_loss(make_trainer, random_folder, tmp_path, kind):
    with CompletionsServer(loader(random_folder), folder=tmp_path / "served", distort=flattened) as wrong:
        settings = served(wrong, tmp_path, iterations=1, off_policy_correction=kind, off_policy_cap=2.0)
        trainer = make_trainer(model=Qwen3ForCausalLM.from_pretrained(random_folder), **settings)
        trainer.train()
    (episodes,) = [played(trainer, 1)]
    steps = [step for episode in episodes for step in episode.steps]
    sampled = np.array([log_prob for step in steps for log_prob in step.log_probs])
    iteration = trainer._iteration
    log_ratios, lengths = iteration.old_log_probs - sampled, [len(step.response_ids) for step in steps]
    of_step = np.repeat(np.arange(len(steps)), lengths)
    of_episode = np.repeat(np.arange(len(episodes)), [sum(len(s.response_ids) for s in e.steps) for e in episodes])
    if kind == "token_truncate":
        expected = np.minimum(np.exp(log_ratios), 2.0)
    elif kind == "step_truncate":
        expected = np.minimum(np.exp(np.bincount(of_step, log_ratios)), 2.0)[of_step]
    else:
        ratios = np.exp(np.bincount(of_episode, log_ratios))
        expected = np.where(ratios <= 2.0, ratios, 0.0)[of_episode]
    plain = iteration.credit.of_tokens(lengths)
    found = iteration.weighted_advantages[plain != 0] / plain[plain != 0]
    assert np.abs(log_ratios).max() > 0.1
    np.testing.assert_allclose(found, expected[plain != 0], rtol=1e-6)
    assert logged(trainer, "correction_mean") == [pytest.approx(expected.mean(), rel=1e-5)]
    assert 0.0 < logged(trainer, "correction_sample_size")[0] <= 1.0


def with_another_token(log_probs):
    """A token beyond the vocabulary of the model comes now and then."""
    return np.log(np.append(0.98 * np.exp(log_probs), 0.02))


def test_a_token_that_the_model_does_not_have_costs_its_episode(make_trainer, random_folder, tmp_path):
    settings = {"iterations": 1, "episodes_per_iteration": 16, "max_completion_length": 1}
    settings |= {"off_policy_correction": "token_truncate"}
    with CompletionsServer(loader(random_folder), folder=tmp_path / "served", distort=with_another_token) as wrong:
        model = Qwen3ForCausalLM.from_pretrained(random_folder)
        trainer = make_trainer(model=model, **served(wrong, tmp_path, **settings))
        trainer.train()
    failures = [episode.failure for episode in played(trainer, 1) if episode.failure is not None]
    assert 0 < len(failures) < 16
    assert all("Does it serve another?" in failure.message for failure in failures)


def test_a_server_whose_contexts_are_too_short_ends_a_run_before_it_plays(make_trainer, random_folder, tmp_path):
    with CompletionsServer(loader(random_folder), folder=tmp_path / "served", max_model_len=100) as short:
        model = Qwen3ForCausalLM.from_pretrained(random_folder)
        trainer = make_trainer(model=model, **served(short, tmp_path, max_prompt_tokens=97))
        with pytest.raises(SteppoGymError, match="takes contexts of 100 tokens, and those of this run have up to 101"):
            trainer.train()
    assert not short.requests


def test_on_policy_a_correction_changes_nothing(make_trainer):
    found = []
    for settings in ({"recompute_log_probs": True}, {"off_policy_correction": "step_truncate"}):
        # Plain steps: Adam divides by how large a gradient is, and with it by its rounding.
        plain = {"iterations": 1, "optim": "sgd", "learning_rate": 0.1}
        trainer = make_trainer(spec=PENALTY, **{**SMALL, **plain, **settings})
        before = weights(trainer.model)
        trainer.train()
        found.append(change(before, weights(trainer.model)))
    assert relative_difference(*found) < 1e-4
    assert logged(trainer, "correction_mean") == [pytest.approx(1.0, abs=1e-4)]
    assert logged(trainer, "correction_cut") == [0.0]


OVERLAP = {
    "overlap_updates": True,
    "off_policy_correction": "step_truncate",
    "iterations": 3,
    "updates_per_iteration": 2,
}


def test_updates_overlap_with_the_rollout_after_next_and_every_step_says_its_weights(make_trainer):
    runs = []
    for _ in range(2):
        trainer = make_trainer(spec=PENALTY, **OVERLAP)
        trainer.train()
        runs.append(trainer)
    assert [versions(runs[0], iteration) for iteration in (1, 2, 3)] == [{0}, {0}, {2}]
    # The first is sampled with the weights of now, the others with those from before the updates.
    gaps = logged(runs[0], "sampler_kl")
    assert gaps[0] < 1e-8 < min(gaps[1:])
    # Whatever the thread did when, the run is the same.
    for iteration in (1, 2, 3):
        assert untimed(played(runs[0], iteration)) == untimed(played(runs[1], iteration))
    logs = [fixed_metrics(run.state.log_history) for run in runs]
    assert logs[0] == logs[1]
    assert all(torch.equal(a, b) for a, b in zip(runs[0].model.parameters(), runs[1].model.parameters(), strict=True))


def test_servers_have_the_older_weights_while_updates_go_on(server, make_trainer, random_model, tmp_path):
    trainer = make_trainer(model=random_model(), **served(server, tmp_path, **OVERLAP))
    trainer.train()
    assert [versions(trainer, iteration) for iteration in (1, 2, 3)] == [{0}, {0}, {2}]


def test_a_trainer_that_is_closed_leaves_no_rollout_behind(make_trainer):
    trainer = make_trainer(spec=PENALTY, **OVERLAP)
    trainer._play_ahead(9)
    future = trainer._ahead._future
    trainer.close()
    assert future.done() and future.exception() is not None, "it has to end before its last episode"
    assert trainer._ahead.take(9) is None


def test_an_evaluation_in_the_environments_of_the_rollout_ahead_waits_for_it(make_trainer):
    trainer, threads = make_trainer(spec=PENALTY, **OVERLAP), []

    def slowly(episode):
        threads.append(threading.current_thread().name.partition("_")[0])
        time.sleep(0.02 if threads[-1] == "rollout" else 0.0)

    trainer.on_episode = slowly
    trainer._play_ahead(9)
    future = trainer._ahead._future
    trainer.play_evaluation_set(EvaluationSet("same", PENALTY, trainer.task_ids[:4]), temperature=0.0)
    assert future.done() and future.exception() is None
    assert threads == ["rollout"] * 8 + ["MainThread"] * 4


def test_what_ends_a_rollout_ahead_is_raised_where_it_is_taken():
    ahead = Ahead()

    def broken():
        raise RuntimeError("broken on purpose")

    ahead.start(3, broken)
    with pytest.raises(RuntimeError, match="broken on purpose"):
        ahead.take(3)
    assert ahead.take(3) is None
    ahead.close()


def test_tasks_ahead_are_all_dealt_before_any_is_dealt_again():
    ids = [str(i) for i in range(10)]
    dealt = [task for number in range(5) for task in tasks_of(ids, number, 4, seed=3)]
    assert sorted(dealt[:10]) == sorted(dealt[10:]) == ids
    assert dealt[:10] != dealt[10:] != ids
    assert dealt != [task for number in range(5) for task in tasks_of(ids, number, 4, seed=4)]


def test_every_server_has_a_process_and_every_process_a_server():
    servers = ("a", "b", "c", "d", "e")
    assert [share(servers, rank, 2) for rank in range(2)] == [("a", "c", "e"), ("b", "d")]
    assert [share(("a", "b"), rank, 3) for rank in range(3)] == [("a",), ("b",), ("a",)]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"overlap_updates": True}, "choose an off_policy_correction"),
        ({"overlap_updates": True, "off_policy_correction": "token_truncate", "use_vllm": True}, "cannot share TRL's"),
        (
            {"overlap_updates": True, "off_policy_correction": "token_truncate", "shuffle_dataset": False},
            "shuffle_dataset False has no effect",
        ),
        ({"off_policy_correction": "masked"}, "off_policy_correction must be one of none, token_truncate"),
        ({"off_policy_correction": "token_truncate", "off_policy_cap": 0.9}, "off_policy_cap must be at least 1"),
        ({"off_policy_cap": 2.0}, "off_policy_cap has no effect without"),
        ({"policy_servers": "http://a"}, "belong together"),
        ({"policy_servers_folder": "/dev/shm/policy"}, "belong together"),
        ({"policy_servers_model": "x"}, "no effect without policy_servers"),
        ({"policy_servers": "http://a,,b", "policy_servers_folder": "x"}, "addresses, separated by commas"),
        ({"policy_servers": "http://a", "policy_servers_folder": "x", "use_vllm": True}, "two ways to sample"),
        ({"use_vllm": True, "vllm_mode": "colocate", "vllm_tensor_parallel_size": 2}, "tensor_parallel_size 1"),
        ({"env_workers": "10.0.0.1"}, "ray://auto or ray://host:10001"),
        ({"env_workers": "ray://auto", "num_env_workers": 0}, "num_env_workers of 1 or more"),
    ],
)
def test_what_cannot_be_served_is_refused(settings, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        settings_of("steppo", output_dir=str(tmp_path), use_cpu=True, **settings)


def test_the_server_path_of_trl_is_refused_for_several_processes(monkeypatch, tmp_path):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match=r"would get each other's\. Use policy_servers"):
        settings_of("steppo", output_dir=str(tmp_path), use_cpu=True, use_vllm=True, vllm_mode="server")


def test_rules_that_play_on_from_states_cannot_be_overlapped(make_trainer):
    with pytest.raises(ValueError, match=r"VinePPO plays on from states"):
        make_trainer(script="vineppo", overlap_updates=True, off_policy_correction="step_truncate")


def test_servers_of_adapters_are_refused(make_trainer, server, tmp_path):
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(r=2, target_modules=["q_proj"])
    with pytest.raises(ValueError, match="whole weights, and adapters are trained here"):
        make_trainer(kwargs={"peft_config": config}, **served(server, tmp_path))


@pytest.mark.parametrize("adapters", [None, LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")])
def test_a_copy_that_is_sampled_from_is_not_what_is_updated(make_trainer, adapters):
    trainer = make_trainer(
        overlap_updates=True, off_policy_correction="step_truncate", kwargs={"peft_config": adapters}
    )
    older = trainer._copy()
    model = older if adapters is None else older.get_base_model()
    ids = torch.arange(8)[None]
    with torch.no_grad():
        before = model(ids).logits
        for parameter in trainer.model.parameters():
            parameter.add_(0.1)
        assert torch.equal(model(ids).logits, before)
        trainer._copy()
        assert not torch.equal(model(ids).logits, before)
