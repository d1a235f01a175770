"""Two processes make the update that one process makes on the same episodes."""

from __future__ import annotations

from types import SimpleNamespace

import distributed_updates
import pytest
from distributed_updates import SETUPS, episodes_of
from ranks import run_ranks
from safetensors.torch import load_file
from trainer_runs import relative_difference

from steppo_gym.rollouts.episode import Episode
from steppo_gym.rollouts.rollout import Rollout, RolloutStats
from steppo_gym.trainers.evaluation import EvaluationSet
from steppo_gym.trainers.phases import Phases
from steppo_gym.trainers.playing_trainer import PlayingTrainer


@pytest.fixture(scope="module")
def together(random_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("together")
    run_ranks(2, lambda: distributed_updates.main(random_folder, folder))
    return folder


def test_the_processes_have_different_numbers_of_steps():
    parts = [[e for e in episodes_of("steppo") if e.group % 2 == rank] for rank in (0, 1)]
    steps = [sum(len(episode.steps) for episode in part) for part in parts]
    assert steps[0] > 2 * steps[1] > 0
    assert all(e.ended == "failed" for e in episodes_of("steppo-failed") if e.group % 2)


def test_tasks_of_different_processes_are_sampled_with_other_numbers():
    asked = []

    def play(spec, own, *, temperature, seed):
        asked.append((seed, [one.task_id for one in own]))
        return Rollout(tuple(Episode(one.task_id, (), "terminated") for one in own), RolloutStats())

    tasks = EvaluationSet("test", None, ("a", "b", "c", "d"))
    for rank in (0, 1):
        one = SimpleNamespace(
            accelerator=SimpleNamespace(num_processes=2, process_index=rank),
            phases=Phases(),
            play=play,
            gather=lambda part: [part, part],
        )
        PlayingTrainer.play_evaluation_set(one, tasks, temperature=1.0, seed=5)
    assert asked == [(5, ["a", "c"]), (6, ["b", "d"])]


@pytest.mark.parametrize("name", SETUPS)
def test_two_processes_make_the_update_of_one(together, alone, name):
    one, other = load_file(alone(name)), load_file(together / f"{name}.safetensors")
    has_critic = name.startswith(("steppo", "ppo"))
    assert set(one) == set(other) == ({"policy", "critic"} if has_critic else {"policy"})
    for part in one:
        assert relative_difference(one[part], other[part]) < 1e-4
