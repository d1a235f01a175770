"""Demonstrations as weighted rows, imitation, and the cache of warm-started policies."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from forked import fork

from steppo_gym.credit.rows import build_rows
from steppo_gym.envs.key_door.env import KeyDoorEnv
from steppo_gym.errors import AllEpisodesFailedError
from steppo_gym.rollouts.demonstrations import MessageCodec
from steppo_gym.rollouts.episode import Episode, Step
from steppo_gym.rollouts.policies import ExpertPolicy
from steppo_gym.rollouts.pool import EnvFactory, EnvPool
from steppo_gym.rollouts.rollout import Assignment, collect
from steppo_gym.trainers.policy.small_policy import SmallPolicyConfig, build_model
from steppo_gym.trainers.warm_start.warm_start import (
    RECORD_FILE,
    WarmStartConfig,
    content_hash,
    demonstration_rows,
    imitate,
    warm_started_policy,
)

STEPS = (
    ("Goal: open the red door.", "<action>read note</action>", False),
    ("The note is torn.", "<action>open jar</action>", True),
    ("The jar is empty.", "<action>open red door</action>", False),
)
TINY = WarmStartConfig(
    num_demonstrations=12,
    num_updates=6,
    batch_size=4,
    policy=SmallPolicyConfig(hidden_size=16, num_layers=1, num_heads=2, vocab_size=320),
)


def demonstration(context, steps=STEPS):
    """An episode of these observations, responses and slips, and the codec it was played with."""
    messages, conversation, made = MessageCodec(), (), []
    for observation, response, slip in steps:
        if context == "rebuilt" or not conversation:
            prompt = messages.first_prompt("Play.", (), observation)
        else:
            prompt = messages.next_prompt(conversation, observation)
        ids = messages.encode_response(response)
        made.append(Step(prompt, ids, None, response, 0.0, "", slip=slip))
        conversation = prompt + ids
    return Episode("train-0", tuple(made), "terminated", success=True), messages


def rows_of(shown, codec, observation_weight):
    return list(demonstration_rows(*shown, codec, observation_weight))


def pieces(row, tokenizer):
    """Runs of equal weight, as (weight, text)."""
    starts = [i for i in range(len(row.weights)) if i == 0 or row.weights[i] != row.weights[i - 1]]
    ends = [*starts[1:], len(row.weights)]
    return [
        (row.weights[start], tokenizer.decode(row.token_ids[start:end]))
        for start, end in zip(starts, ends, strict=True)
    ]


def test_a_demonstration_in_the_append_context_is_one_row(codec, tokenizer):
    (row,) = rows_of(demonstration("append"), codec, observation_weight=0.3)
    assert len(row.weights) == len(row.token_ids)
    assert pieces(row, tokenizer) == [
        (0.3, "<|user|>Goal: open the red door.<|assistant|>"),
        (1.0, "<action>read note</action>"),
        (0.3, "<|end|><|user|>The note is torn.<|assistant|>"),
        (0.0, "<action>open jar</action>"),
        (0.3, "<|end|><|user|>The jar is empty.<|assistant|>"),
        (1.0, "<action>open red door</action>"),
    ]


def test_a_demonstration_in_the_rebuilt_context_is_one_row_per_step(codec, tokenizer):
    rows = rows_of(demonstration("rebuilt"), codec, observation_weight=0.5)
    assert [pieces(row, tokenizer) for row in rows] == [
        [
            (0.5, f"<|user|>{observation}<|assistant|>"),
            (0.0 if slip else 1.0, response),
        ]
        for observation, response, slip in STEPS
    ]


@pytest.mark.parametrize("context", ["append", "rebuilt"])
def test_rows_are_what_a_rollout_of_the_expert_trains_on(codec, context):
    spec = EnvFactory("steppo/KeyDoor-v0", {"context": context})
    with EnvPool(spec, num_slots=1) as pool:
        (episode,) = collect(ExpertPolicy(codec), pool, codec, [Assignment("train-1", seed=0)]).episodes
    env = spec.make()
    observation, _ = env.reset(seed=0, options={"task_id": "train-1"})
    steps = []
    for step in episode.steps:
        steps.append((observation, step.response, False))
        observation, *_ = env.step(step.response)
    rows = rows_of(demonstration(context, steps), codec, observation_weight=0.3)
    assert [row.token_ids for row in rows] == [tuple(row.token_ids.tolist()) for row in build_rows([episode])]
    trained = [[weight == 1.0 for weight in row.weights] for row in rows]
    assert trained == [(row.token_index >= 0).tolist() for row in build_rows([episode])]


def test_imitation_lowers_the_loss_and_repeats_itself(demonstrations, messages, tokenizer, codec):
    rows = [row for d in demonstrations[:32] for row in demonstration_rows(d, messages, codec, 0.3)]

    def train(seed):
        model = build_model(tokenizer, SmallPolicyConfig(hidden_size=16, num_layers=1, num_heads=2), seed=0)
        config = WarmStartConfig(num_updates=30, batch_size=8)
        losses = imitate(model, rows, config, pad_token_id=tokenizer.pad_token_id, seed=seed, progress=False)
        return losses, model.state_dict()

    (first, weights), (second, same_weights), (other, _) = train(0), train(0), train(1)
    assert len(first) == 30
    assert first == second
    assert all(torch.equal(weights[name], same_weights[name]) for name in weights)
    assert first[0] > 4 and sum(first[-3:]) / 3 < 0.7 * first[0]
    assert first != other


def test_weights_of_zero_teach_nothing(tokenizer, codec):
    # The row's only trained token is its last; with other texts before the slip the loss must stay the same.
    def loss(slip_text):
        rows = rows_of(demonstration("append", (STEPS[0], ("The note is torn.", slip_text, True))), codec, 0.0)
        model = build_model(tokenizer, SmallPolicyConfig(hidden_size=16, num_layers=1, num_heads=2), seed=0)
        config = WarmStartConfig(num_updates=2, batch_size=1)
        return imitate(model, rows, config, pad_token_id=tokenizer.pad_token_id, seed=0, progress=False)

    assert loss("<action>open jar</action>") == pytest.approx(loss("<action>open bag</action>"), rel=1e-5)


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    def choose(name):
        monkeypatch.setenv("STEPPO_GYM_CACHE", str(tmp_path / name))

    choose("first")
    return choose


def make_policy(spec, task_ids, seed=0, num_workers=0, config=TINY):
    return warm_started_policy(spec, task_ids, config, seed=seed, num_workers=num_workers, progress=False)


def test_a_policy_is_made_once(own_cache, spec, task_ids):
    folder = make_policy(spec, task_ids)
    made = {file: file.stat().st_mtime_ns for file in folder.iterdir()}
    assert make_policy(spec, task_ids) == folder
    assert {file: file.stat().st_mtime_ns for file in folder.iterdir()} == made
    record = json.loads((folder / RECORD_FILE).read_text())
    assert len(record["losses"]) == 6 and record["demonstration_success"] == 1.0 and record["seed"] == 0


def test_a_policy_that_was_not_finished_is_made_again(own_cache, spec, task_ids):
    folder = make_policy(spec, task_ids)
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "warm_start.json").unlink()
    (folder / "model.safetensors").write_bytes(b"half a file")
    assert make_policy(spec, task_ids) == folder
    assert (folder / "model.safetensors").read_bytes() == weights


def test_other_seeds_settings_and_environments_make_other_policies(own_cache, spec, task_ids):
    rebuilt = EnvFactory(spec.env_id, {"context": "rebuilt"})
    longer = WarmStartConfig(num_demonstrations=12, num_updates=7, batch_size=4, policy=TINY.policy)
    folders = [
        make_policy(spec, task_ids),
        make_policy(spec, task_ids, seed=1),
        make_policy(spec, task_ids[1:]),
        make_policy(spec, task_ids, config=longer),
        make_policy(rebuilt, task_ids),
    ]
    assert len(set(folders)) == len(folders)
    # Only the first tasks are demonstrated, so what comes after them makes no difference.
    assert make_policy(spec, task_ids[:12]) == folders[0]


def test_workers_do_not_change_the_policy(own_cache, spec, task_ids):
    alone = make_policy(spec, task_ids, num_workers=0)
    own_cache("second")
    together = make_policy(spec, task_ids, num_workers=2)
    assert alone != together and alone.name == together.name
    files = sorted(file.name for file in alone.iterdir())
    assert files == sorted(file.name for file in together.iterdir())
    for name in files:
        assert (alone / name).read_bytes() == (together / name).read_bytes(), name


def test_an_edit_of_another_environment_keeps_the_policy(own_cache, spec, task_ids, monkeypatch):
    def changed(module):
        """The folder if this module had another text."""
        original = Path.read_bytes
        file = Path(importlib.util.find_spec(module).origin)
        with monkeypatch.context() as patch:
            patch.setattr(Path, "read_bytes", lambda path: original(path) + b"\n# x" * (path == file))
            return content_hash(spec, task_ids, TINY, 0)

    usual = content_hash(spec, task_ids, TINY, 0)
    assert changed("steppo_gym.envs.webshop.env") == usual == changed("steppo_gym.trainers.metrics")
    assert usual not in {changed("steppo_gym.envs.key_door.render"), changed("steppo_gym.quoting")}


def test_what_an_environment_says_of_its_texts_counts(own_cache, spec, task_ids, monkeypatch):
    usual = content_hash(spec, task_ids, TINY, 0)
    monkeypatch.setattr(KeyDoorEnv, "text_version", "2")
    assert content_hash(spec, task_ids, TINY, 0) != usual


def test_two_processes_make_one_policy(tmp_path, spec, task_ids):
    runs = [fork(lambda: print(make_policy(spec, task_ids)), STEPPO_GYM_CACHE=str(tmp_path)) for _ in range(2)]
    folders = {run.stdout.strip() for run in runs}
    assert [run.returncode for run in runs] == [0, 0] and len(folders) == 1
    (folder,) = map(Path, folders)
    assert {path.name for path in folder.parent.iterdir()} <= {folder.name, f"{folder.name}.lock"}
    assert json.loads((folder / RECORD_FILE).read_text())["demonstrations_failed"] == 0


def test_a_killed_worker_does_not_stop_the_warm_start(own_cache, spec, task_ids):
    # Enough that they are still played when the worker is killed, on any machine.
    task_ids, config = task_ids * 8, replace(TINY, num_demonstrations=8 * len(task_ids))
    whole = make_policy(spec, task_ids, config=config)
    own_cache("second")
    others, killed = children(), []

    def kill():
        while not (workers := children() - others):
            time.sleep(0.01)
        time.sleep(0.2)
        killed.append(workers.pop())
        os.kill(killed[0], signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    again = make_policy(spec, task_ids, config=config, num_workers=2)
    killer.join()
    assert killed
    assert (again / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()


def children():
    return {int(pid) for pid in Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()}


def test_nothing_to_learn_from_is_an_error(own_cache, task_ids, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1]))
    walk = EnvFactory("rollout_envs:steppo-test/Walk-v0", {"context": "append"})
    with pytest.raises(AllEpisodesFailedError, match=r"All 3 episodes failed.*the walker fell"):
        make_policy(walk, ["raise-0"] * 3)
    assert not list(Path(os.environ["STEPPO_GYM_CACHE"], "policies").glob("*[!k]"))
    folder = make_policy(walk, ["raise-1", *["walk-5"] * 5])
    record = json.loads((folder / RECORD_FILE).read_text())
    assert (record["demonstrations"], record["demonstrations_failed"]) == (5, 1)
    said = "1 of 6 demonstrations failed and are left out. The first, environment: RuntimeError: the walker fell"
    assert capsys.readouterr().out.startswith(said)
