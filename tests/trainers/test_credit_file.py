"""What a trainer records of the credit it gave: the numbers its losses had, and nothing it does differently."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import trainer_envs
from trainer_runs import change, played, weights

from steppo_gym.credit.rows import build_rows
from steppo_gym.rollouts.pool import EnvFactory
from steppo_gym.trainers.credit_file import TokenTrace, save_arrays
from steppo_gym.trainers.step_data import sampled_log_probs
from steppo_gym.view.credit_arrays import STEP_COLUMNS, TOKEN_COLUMNS, read_credit

SETTINGS = {"updates_per_iteration": 2, "num_generations": 2, "learning_rate": 0.01}


def recorded(trainer, iteration=1):
    path = Path(trainer.args.output_dir, "episodes", f"iteration-{iteration:04d}.credit.npz")
    with np.load(path, allow_pickle=False) as arrays:
        return dict(arrays)


@pytest.mark.parametrize("script", ["steppo", "ppo", "grpo"])
def test_the_file_has_what_the_updates_had(make_trainer, script):
    trainer = make_trainer(script=script, record_credit=3, **SETTINGS)
    trainer.train()
    episodes, found, logged = played(trainer, 1), recorded(trainer), trainer.state.log_history[0]
    assert found["lines"].tolist() == list(range(8)) and found["sampled"].tolist() == [0, 1, 2]
    assert found["steps"].tolist() == [episode.num_steps for episode in episodes]
    tokens = [[len(step.response_ids) for step in episode.steps] for episode in episodes]
    assert found["tokens"].tolist() == [sum(one) for one in tokens[:3]]
    # After the last update, for every token of the sample: its log-probability anew, minus that when sampled.
    rows = build_rows(episodes)
    after, before = trainer._forward.log_probs(rows, sum(map(sum, tokens))), sampled_log_probs(episodes)
    sample = slice(0, sum(map(sum, tokens[:3])))
    assert before is not None
    np.testing.assert_allclose(found["token_log_prob_change"], (after - before)[sample], rtol=1e-4, atol=1e-5)
    assert np.abs(found["token_log_prob_change"]).max() > 0.01
    # Half of the episodes were trained on by the policy that sampled them, the other half by one that had moved.
    ones = np.isclose(found["ratio"], 1.0, atol=1e-5)
    assert 0 < ones.sum() < len(ones)
    assert (found["ratio_min"] <= found["ratio"] + 1e-6).all() and (found["ratio"] <= found["ratio_max"] + 1e-6).all()
    # Token by token it is the same as step by step.
    per_step = np.repeat(np.arange(sum(map(len, tokens[:3]))), [n for one in tokens[:3] for n in one])
    for name, reduce in (("ratio_max", np.max), ("advantage", np.mean)):
        column = found["token_advantage" if name == "advantage" else "token_ratio"]
        of_steps = [reduce(column[per_step == step]) for step in range(per_step[-1] + 1)]
        np.testing.assert_allclose(found[name][: len(of_steps)], of_steps, rtol=1e-4, atol=1e-6)
    assert (found["token_entropy"] > 0).all()
    if script == "grpo":
        assert np.isnan(found["value"]).all() and "advantage_mean" in logged
        # One advantage for all steps of an episode.
        assert all(len(set(part)) == 1 for part in np.split(found["advantage"], np.cumsum(found["steps"])[:-1]))
    else:
        assert np.isfinite(found["value"]).all()
    if script == "steppo":
        assert found["value"].mean() == pytest.approx(logged["value_mean"], abs=1e-5)
        # Those of the loss, which are whitened.
        assert found["advantage"].mean() == pytest.approx(0.0, abs=1e-5)
        assert found["advantage"].std() == pytest.approx(1.0, abs=0.02)


def test_the_viewer_reads_what_the_trainer_writes(make_trainer):
    trainer = make_trainer(record_credit=2, **SETTINGS)
    trainer.train()
    path = Path(trainer.args.output_dir, "episodes", "iteration-0001.jsonl")
    credit, episodes, found = read_credit(path), played(trainer, 1), recorded(trainer)
    assert credit is not None
    first = 0
    for line, episode in enumerate(episodes):
        columns = credit.of_steps(line, 0, episode.num_steps)
        assert set(columns) == set(STEP_COLUMNS)
        assert columns["value"] == pytest.approx(found["value"][first : first + episode.num_steps].tolist(), rel=1e-3)
        first += episode.num_steps
        assert credit.has_tokens(line) == (line < 2)
    env = EnvFactory("steppo/KeyDoor-v0", {"context": "append"}).make()
    for line, episode in enumerate(episodes):
        _, info = env.reset(seed=episode.seed, options={"task_id": episode.task_id})
        for number, step in enumerate(episode.steps):
            expected = list(info["admissible_actions"]) if line < 2 else []
            assert credit.admissible(line, number) == expected and (expected or line >= 2)
            info = env.step(step.response)[-1]
    tokens = sum(len(step.response_ids) for step in episodes[1].steps)
    columns = credit.of_tokens(1, 0, 10**6)
    assert set(columns) == set(TOKEN_COLUMNS) and {len(column) for column in columns.values()} == {tokens}


def test_failed_episodes_have_no_credit(make_trainer):
    assert trainer_envs.BreakingKeyDoorEnv
    tasks = [f"train-{number}" for number in range(4)]
    spec = EnvFactory("steppo-test/BreakingKeyDoor-v0", {"context": "append", "broken": (tasks[1],)})
    trainer = make_trainer(spec=spec, task_ids=tasks, record_credit=8, **SETTINGS)
    trainer.train()
    episodes, found = played(trainer, 1), recorded(trainer)
    failed = [line for line, episode in enumerate(episodes) if episode.ended == "failed"]
    assert len(failed) == 2
    assert sorted([*failed, *found["lines"].tolist()]) == list(range(8))
    assert found["sampled"].tolist() == found["lines"].tolist()
    assert found["steps"].tolist() == [episodes[line].num_steps for line in found["lines"]]


def test_episodes_from_other_states_are_trained_and_stand_in_no_file_of_credit(make_trainer):
    trainer = make_trainer(script="bpo", record_credit=8, **SETTINGS)
    trainer.train()
    assert trainer.state.log_history[0]["branch_episodes"] > 0
    episodes, found = played(trainer, 1), recorded(trainer)
    assert found["lines"].tolist() == found["sampled"].tolist() == list(range(8))
    assert len(found["advantage"]) == sum(episode.num_steps for episode in episodes)
    assert (
        len(found["token_ratio"])
        == found["tokens"].sum()
        == sum(len(step.response_ids) for episode in episodes for step in episode.steps)
    )
    assert np.isfinite(found["ratio"]).all() and np.isfinite(found["token_log_prob_change"]).all()


def test_recording_changes_nothing_that_is_trained(make_trainer):
    trained = []
    for settings in ({"record_credit": 8}, {"record_credit": 0}, {"save_episodes": False}):
        trainer = make_trainer(iterations=2, episodes_per_iteration=4, **SETTINGS, **settings)
        before = weights(trainer.model)
        trainer.train()
        trained.append(change(before, weights(trainer.model)))
        folder = Path(trainer.args.output_dir, "episodes")
        assert len(list(folder.glob("*.credit.npz"))) == (2 if trainer.args.save_episodes else 0)
        if settings == {"record_credit": 0}:
            found = recorded(trainer, 2)
            assert len(found["sampled"]) == len(found["token_ratio"]) == 0 < len(found["advantage"])
    assert torch.equal(trained[0], trained[1]) and torch.equal(trained[0], trained[2])


def test_a_trace_keeps_the_last_loss_of_a_token():
    trace = TokenTrace(4)
    trace.note(torch.tensor([[-1, 2, 0]]), torch.tensor([[9.0, -2.0, -0.5]]), torch.tensor([[9.0, 2.0, 0.5]]))
    trace.note(torch.tensor([[2, -1]]), torch.tensor([[-3.0, 9.0]]), torch.tensor([[3.0, 9.0]]))
    np.testing.assert_equal(trace.log_probs, [-0.5, np.nan, -3.0, np.nan])
    np.testing.assert_equal(trace.entropy, [0.5, np.nan, 3.0, np.nan])


def test_a_file_is_there_whole_or_not_at_all(tmp_path):
    path = tmp_path / "a.credit.npz"

    class Unwritable:
        def __array__(self, *args, **kwargs):
            raise OSError("no space left")

    with pytest.raises(OSError, match="no space"):
        save_arrays(path, {"lines": np.zeros(3), "steps": Unwritable()})  # type: ignore[dict-item]
    assert not path.exists()
    save_arrays(path, {"lines": np.zeros(3)})
    assert [one.name for one in tmp_path.iterdir()] == ["a.credit.npz"]
