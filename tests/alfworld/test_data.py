"""Official game files: which are found, what they are called, and what is said about those that cannot be played."""

from __future__ import annotations

import json
import os
import shutil

import gymnasium
import pytest

import steppo_gym  # noqa: F401 - registers the environments
from steppo_gym.envs.alfworld.built_in.generate import write_games
from steppo_gym.envs.alfworld.data import MAX_FILE_BYTES, GameFiles, ProceduralGames
from steppo_gym.envs.alfworld.splits import DIFFICULTIES, SPLIT_SIZES
from steppo_gym.envs.alfworld.tasks import TASK_TYPES
from steppo_gym.errors import DataError, UnknownTaskError

REAL_GAME = "alfworld/real_heat_potato_sinkbasin_14.tw-pddl"


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Twelve games in the official layout; never changed by a test."""
    folder = tmp_path_factory.mktemp("official")
    write_games(folder, "valid_seen", "full", 12)
    return folder


@pytest.fixture
def changed(written, tmp_path):
    """A copy that a test may damage."""
    shutil.copytree(written, tmp_path / "data")
    return tmp_path / "data"


def game_files(folder):
    return sorted(folder.glob("json_2.1.1/*/*/*/game.tw-pddl"))


def collected_officially(folder, task_types=TASK_TYPES):
    """The rule of `AlfredTWEnv.collect_game_files` (alfworld 0.4.2), everything parsed."""
    found = set()
    for root, _, files in os.walk(folder, topdown=False):
        if "traj_data.json" not in files:
            continue
        if "movable" in root or "Sliced" in root:
            continue
        with open(os.path.join(root, "traj_data.json")) as file:
            if json.load(file)["task_type"] not in task_types:
                continue
        path = os.path.join(root, "game.tw-pddl")
        if not os.path.exists(path):
            continue
        with open(path) as file:
            game = json.load(file)
        if "solvable" not in game or not game["solvable"]:
            continue
        found.add(path)
    return found


def rewrite(path, **changes):
    content = json.loads(path.read_text())
    content.update(changes)
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not ...}))


def test_ids_are_split_task_and_trial_in_order(written):
    games = GameFiles(written, "valid_seen")
    assert list(games.task_ids) == [
        path.parent.relative_to(written / "json_2.1.1").as_posix() for path in game_files(written)
    ]
    assert len(games.task_ids) == 12
    first = games.load(games.task_ids[0])
    assert first.task_id == games.task_ids[0]
    assert first.content == json.loads(game_files(written)[0].read_text())


@pytest.mark.parametrize("below", ["", "json_2.1.1", "json_2.1.1/valid_seen", "link"])
def test_every_way_to_name_the_folder(written, tmp_path, below):
    if below == "link":
        (tmp_path / "games").symlink_to(written / "json_2.1.1")
        folder = tmp_path / "games"
    else:
        folder = written / below
    assert GameFiles(folder, "valid_seen").task_ids == GameFiles(written, "valid_seen").task_ids


def test_the_folder_may_stand_in_the_environment(written, monkeypatch):
    monkeypatch.setenv("ALFWORLD_DATA", str(written))
    assert len(GameFiles("$ALFWORLD_DATA/json_2.1.1", "valid_seen").task_ids) == 12
    monkeypatch.setenv("HOME", str(written))
    assert len(GameFiles("~", "valid_seen").task_ids) == 12


def test_the_latest_release_wins(changed):
    newer = changed / "json_2.1.3" / "valid_seen" / game_files(changed)[0].parent.parent.name
    shutil.copytree(game_files(changed)[0].parent.parent, newer)
    assert len(GameFiles(changed, "valid_seen").task_ids) == 1


def test_the_same_games_count_as_officially(changed):
    paths = game_files(changed)
    for path, solvable in zip(paths, (False, None, ..., "yes", [], True), strict=False):
        rewrite(path, solvable=solvable)
    # A text that looks like the key, and the key ahead of the long texts.
    rewrite(paths[6], walkthrough=['"solvable": false'], solvable=True)
    content = json.loads(paths[7].read_text())
    paths[7].write_text(json.dumps({"solvable": False} | {k: v for k, v in content.items() if k != "solvable"}))
    (paths[8].parent / "traj_data.json").unlink()
    paths[9].unlink()
    sliced = paths[10].parent.parent
    sliced.rename(sliced.parent / sliced.name.replace("-None", "Sliced-None"))
    movable = paths[11].parent.parent
    shutil.copytree(movable, movable.parent / "pick_and_place_with_movable_recep-Pen-Mug-Desk-1")
    shutil.copytree(movable, movable.parent / "pick_some-Pen-None-Desk-1")
    found = {str(path) for path in GameFiles(changed, "valid_seen")._paths.values()}
    assert found == collected_officially(changed / "json_2.1.1" / "valid_seen")
    assert 3 <= len(found) < 12


@pytest.mark.parametrize("task_types", [TASK_TYPES[:1], TASK_TYPES[1:3], (TASK_TYPES[5], TASK_TYPES[4])])
def test_task_types_filter(written, task_types):
    games = GameFiles(written, "valid_seen", task_types)
    assert {str(path) for path in games._paths.values()} == collected_officially(written, task_types)
    assert {games.load(task_id).goal.task_type for task_id in games.task_ids} == set(task_types)


def test_a_folder_not_named_after_its_task_is_looked_into(changed):
    path = game_files(changed)[0]
    expected = json.loads((path.parent / "traj_data.json").read_text())["task_type"]
    path.parent.parent.rename(path.parent.parent.parent / "a game of mine")
    games = GameFiles(changed, "valid_seen", (expected,))
    assert any("a game of mine" in task_id for task_id in games.task_ids)


def test_official_files_play_like_the_built_in_games(written):
    built_in = gymnasium.make("steppo/ALFWorld-v0", split="valid_seen")
    official = gymnasium.make("steppo/ALFWorld-v0", split="valid_seen", data=written, task_types=TASK_TYPES[:2])
    assert {task_id.split("/")[1].partition("-")[0] for task_id in official.unwrapped.task_ids} == set(TASK_TYPES[:2])
    for task_id in official.unwrapped.task_ids[:2]:
        same = f"full/valid_seen/{task_id[-5:]}"
        results = [official.reset(options={"task_id": task_id}), built_in.reset(options={"task_id": same})]
        while True:
            assert results[0][:-1] == results[1][:-1]
            assert results[0][-1]["admissible_actions"] == results[1][-1]["admissible_actions"]
            if len(results[0]) == 5 and results[0][2]:
                break
            response = built_in.unwrapped.expert_response()
            assert official.unwrapped.expert_response() == response
            results = [official.step(response), built_in.step(response)]


def test_missing_games_say_what_to_do(tmp_path, written):
    (tmp_path / "json_2.1.1" / "train").mkdir(parents=True)
    for folder, found in [(tmp_path, "only json_2.1.1, train"), (tmp_path / "none", "found nothing")]:
        with pytest.raises(DataError, match=rf"split 'valid_seen' were expected in .*{found}.*steppo-gym download"):
            GameFiles(folder, "valid_seen")
    with pytest.raises(
        DataError, match=r"No playable .* is in .*train: .* with its traj_data\.json\. .*steppo-gym download"
    ):
        GameFiles(tmp_path, "train")
    with pytest.raises(UnknownTaskError, match=r"Unknown task_id 'x'\. This split has 12 tasks"):
        GameFiles(written, "valid_seen").load("x")


def test_a_folder_that_cannot_be_looked_into_is_named(written, monkeypatch):
    closed, scandir = game_files(written)[3].parent, os.scandir

    def refuse(path):
        if os.fspath(path) == os.fspath(closed):
            raise PermissionError(13, "Permission denied", os.fspath(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(DataError, match=rf"{closed} cannot be read \(Permission denied\)"):
        GameFiles(written, "valid_seen")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "not readable JSON"),
        (b"\xff\xfe", "not readable JSON"),
        (b"[" * 100_000, "not readable JSON"),
        (b"[1]", "must hold a JSON object, found list"),
        (b"{}", "lacks the text pddl_domain, grammar, pddl_problem"),
        (b'{"pddl_domain": 1, "grammar": "", "pddl_problem": ""}', "lacks the text pddl_domain"),
        (b'{"pddl_domain": "", "grammar": "", "pddl_problem": "(:goal (and))"}', "none of the six task types"),
        (b" " * (MAX_FILE_BYTES + 1), f"at most {MAX_FILE_BYTES}"),
    ],
)
def test_a_damaged_file_is_named(tmp_path, content, message):
    path = tmp_path / "game.tw-pddl"
    path.write_bytes(content)
    games = GameFiles(path, "train")
    with pytest.raises(DataError, match=message) as caught:
        games.load(games.task_ids[0])
    assert str(path) in str(caught.value)


def test_a_game_the_engine_cannot_play_is_an_error_and_not_a_state(tmp_path, written):
    path = tmp_path / "game.tw-pddl"
    shutil.copy(game_files(written)[0], path)
    rewrite(path, pddl_domain="(define (domain alfred))")
    env = gymnasium.make("steppo/ALFWorld-v0", data=path)
    for _ in range(2):
        # Of thousands of games, which one.
        with pytest.raises(DataError, match=f"^The game {env.unwrapped.task_ids[0]} cannot be played: The game's PDDL"):
            env.reset(seed=0)


def test_one_file_is_one_game(written):
    path = game_files(written)[0]
    games = GameFiles(path, "train")
    assert games.task_ids == (f"{path.parent.parent.name}/{path.parent.name}",)
    assert games.load(games.task_ids[0]).content["solvable"] is True
    kind = path.parent.parent.name.partition("-")[0]
    assert GameFiles(path, "train", (kind,)).task_ids == games.task_ids
    with pytest.raises(DataError, match=f"game.tw-pddl is a game of the type {kind}, got task_types="):
        GameFiles(path, "train", tuple(name for name in TASK_TYPES if name != kind))


@pytest.mark.data
@pytest.mark.parametrize("expert", ["oracle", "search"])
def test_the_real_game_is_played_and_won(shared_data, expert):
    path = shared_data / REAL_GAME
    env = gymnasium.make("steppo/ALFWorld-v0", data=path, expert=expert, max_steps=60)
    assert env.unwrapped.task_ids == (path.stem,)
    observation, info = env.reset(seed=0)
    assert observation.startswith("Task: put a hot potato in sinkbasin.\n")
    assert set(info["metrics"]) == {"success", "success/pick_heat_then_place_in_recep"}
    terminated, steps = False, 0
    while not terminated:
        _, reward, terminated, truncated, info = env.step(env.unwrapped.expert_response())
        assert not truncated
        steps += 1
    assert info["success"] and reward == 1.0
    # The planner of Fast Downward needs six.
    assert steps == 6 or expert == "search"


@pytest.mark.parametrize("difficulty", DIFFICULTIES)
def test_built_in_ids(difficulty):
    for split, size in SPLIT_SIZES.items():
        games = ProceduralGames(split, difficulty)
        assert games.task_ids == tuple(f"{difficulty}/{split}/{number:05d}" for number in range(size))


def test_built_in_task_types():
    games = ProceduralGames("valid_seen", "medium", ("look_at_obj_in_light",))
    assert games.task_ids[:2] == ("medium/valid_seen/00001", "medium/valid_seen/00004")
    assert {games.load(task_id).goal.task_type for task_id in games.task_ids} == {"look_at_obj_in_light"}
    with pytest.raises(ValueError, match="Difficulty 'easy' has the task types pick_and_place_simple, got"):
        ProceduralGames("train", "easy", ("look_at_obj_in_light",))
    with pytest.raises(UnknownTaskError, match="Unknown task_id 'easy/train/00000'"):
        ProceduralGames("train", "full").load("easy/train/00000")
    for wrong in ((), "look_at_obj_in_light", ("juggle",)):
        with pytest.raises(ValueError, match="task_types must be"):
            ProceduralGames("train", "full", wrong)
