"""Two evaluations of the same tasks against each other."""

from __future__ import annotations

import itertools
import json
import math
from random import Random

import pytest

from steppo_gym.cli import main
from steppo_gym.evaluation.comparing import paired, sign_flip_p
from steppo_gym.evaluation.results import CONFIG_FILE, SUMMARY_FILE, read_settings, results, settle_folder
from steppo_gym.rollouts.episode import Episode, Failure, Step, write_episodes
from steppo_gym.storage import json_lines


def table(both, first, second, neither):
    """Outcomes of one try each, by how many tasks both solved, only one of them, or none."""
    pairs = [(True, True)] * both + [(True, False)] * first + [(False, True)] * second + [(False, False)] * neither
    return [[one] for one, _ in pairs], [[other] for _, other in pairs]


def test_a_published_table_has_its_published_interval():
    # Hyperresponsiveness before and after transplantation, as in Fagerland, Lydersen and Laake, Statistics in Medicine
    # 33 (2014), p. 2850: Newcombe's interval and the exact test of McNemar.
    found = paired(*table(1, 1, 7, 12))
    assert (round(found.mean, 3), round(found.low, 3), round(found.high, 3)) == (-0.286, -0.507, -0.026)
    assert (found.better, found.worse, round(found.p_value, 3)) == (1, 7, 0.070)


@pytest.mark.parametrize(("first", "second"), [*itertools.product((0, 1, 4, 9), repeat=2)])
def test_one_try_gives_mcnemars_exact_test(first, second):
    number = first + second
    tail = sum(math.comb(number, k) for k in range(min(first, second) + 1)) / 2**number
    assert paired(*table(3, first, second, 5)).p_value == pytest.approx(min(1.0, 2 * tail))


def test_the_test_counts_all_choices_of_signs():
    random = Random(0)
    for number in (0, 1, 2, 5, 9):
        differences = [random.randint(-3, 3) for _ in range(number)]
        sums = [
            sum(sign * size for sign, size in zip(signs, differences, strict=True))
            for signs in itertools.product((-1, 1), repeat=number)
        ]
        share = sum(abs(one) >= abs(sum(differences)) for one in sums) / len(sums)
        assert sign_flip_p(differences) == pytest.approx(share)


def test_the_interval_turns_with_the_difference_and_is_never_of_no_width():
    one, other = table(8, 6, 2, 4)
    found, turned = paired(one, other), paired(other, one)
    assert (found.mean, found.low, found.high) == pytest.approx((-turned.mean, -turned.high, -turned.low))
    assert found.low < found.mean < found.high
    for same in (one, [[True]] * 9, [[False]]):
        nothing = paired(same, same)
        assert nothing.low < nothing.mean == 0 < nothing.high and nothing.p_value == 1


def test_tries_that_are_copies_say_no_more_than_one_and_pairs_say_more_than_strangers():
    one, other = table(8, 6, 2, 4)
    once, thrice = paired(one, other), paired([task * 3 for task in one], [task * 3 for task in other])
    assert (thrice.low, thrice.high) == pytest.approx((once.low, once.high))
    strangers = paired(one, [*other[10:], *other[:10]])
    assert once.high - once.low < strangers.high - strangers.low


STEP = Step((1,), (2,), None, "go", reward=0.0, state_key="")
SETTINGS = {"panel": "doors", "panel_hash": "a" * 64, "policy": {"model": "m"}, "temperature": 0.0}


def write(folder, outcomes, *, finished=True, failed=(), **changes):
    """An evaluation of some tasks, whose outcomes are by task and then by try."""
    size = len(outcomes)
    episodes = [
        Episode(
            f"task-{i}",
            (STEP,),
            "failed" if i in failed else "terminated",
            success=success,
            seed=k * size + i,
            failure=Failure("worker", "died") if i in failed else None,
        )
        for i, tries in enumerate(outcomes)
        for k, success in enumerate(tries)
    ]
    settle_folder(folder, SETTINGS | changes)
    # Not in their order, as they were written while they ended.
    write_episodes(folder / "episodes" / "doors.jsonl", episodes[::-1])
    if finished:
        summary = results(SETTINGS, episodes, tries=len(outcomes[0]))
        (folder / SUMMARY_FILE).write_text(json.dumps(summary))
    return folder


def test_settings_are_there_whole_or_not_at_all(tmp_path, monkeypatch):
    with monkeypatch.context() as full, pytest.raises(OSError, match="disk full"):
        full.setattr(json_lines.os, "fsync", lambda descriptor: (_ for _ in ()).throw(OSError("disk full")))
        settle_folder(tmp_path, SETTINGS)
    assert not (tmp_path / CONFIG_FILE).exists()
    settle_folder(tmp_path, SETTINGS)
    assert read_settings(tmp_path) == SETTINGS


def test_the_name_of_a_panel_does_nothing_to_the_terminal(tmp_path, capsys):
    hostile = {"panel": "doors\x1b[2J"}
    folders = [write(tmp_path / name, [[True], [False]], **hostile) for name in ("one", "two")]
    assert main(["compare", *map(str, folders)]) == 0
    assert capsys.readouterr().out.splitlines()[0].startswith("doors [2J (2 tasks)")


def test_two_evaluations_are_compared_by_task(tmp_path, capsys):
    first, second = table(1, 7, 1, 12)
    folders = [
        write(tmp_path / "one", first, failed=[20]),
        write(tmp_path / "two", second, policy={"model": "n"}, temperature=1.0),
    ]
    assert main(["compare", *map(str, folders)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"doors (21 tasks), hash {'a' * 12}",
        f"  38.1 %  [20.8, 59.1]  {folders[0]}",
        f"  9.5 %  [2.7, 28.9]  {folders[1]}",
        "  second minus first  -28.6  [-50.7, -2.6]  95 % interval",
        "  better on 1 tasks, worse on 7; p = 0.0703, exact sign-flip test",
        '  policy: {"model": "m"} and {"model": "n"}',
        "  temperature: 0.0 and 1.0",
        f"  {folders[0]}: 1 episodes failed and count as not solved.",
    ]


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"panel_hash": "b" * 64, "panel": "windows"}, r"one is of the panel doors (aaaaaaaaaaaa), "),
        ({"outcomes": [[True]]}, "other has 1 tasks with 1 tries"),
        ({"outcomes": [[True, False], [True, False]]}, "one has 2 tasks with 1 tries"),
        ({"finished": False}, "other is not finished. The same command goes on with it."),
    ],
)
def test_what_is_not_of_the_same_tasks_is_refused_by_name(other, said, tmp_path, capsys):
    one = write(tmp_path / "one", [[True], [False]])
    outcomes = other.pop("outcomes", [[True], [False]])
    assert main(["compare", str(one), str(write(tmp_path / "other", outcomes, **other))]) == 1
    assert said in capsys.readouterr().err


def test_evaluations_are_compared_with_evaluations_two_at_a_time(tmp_path, capsys):
    one = str(write(tmp_path / "one", [[True]]))
    (tmp_path / "run").mkdir()
    for arguments, said in (
        ([one, one, one], "two at a time, got 3"),
        ([one, str(tmp_path / "run")], f"Expected the folder of an evaluation, got {tmp_path / 'run'}."),
        ([one, one, "--score=0.3"], "--score and --reference are about runs"),
    ):
        assert main(["compare", *arguments]) == 1
        assert said in capsys.readouterr().err
