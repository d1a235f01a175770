from __future__ import annotations

import hashlib
import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from steppo_gym.cli import main
from steppo_gym.errors import DataError, UnknownTaskError
from steppo_gym.evaluation.panels import (
    Panel,
    PanelSource,
    PanelTask,
    check_panel,
    make_panel,
    open_panel,
    read_panel,
    shipped_panels,
    write_panel,
)
from steppo_gym.rollouts.pool import EnvFactory

KEY_DOOR = EnvFactory("steppo/KeyDoor-v0", {"split": "test"})
SHIPPED = {name: read_panel(path) for name, path in shipped_panels().items()}


def row(number, answer="yes"):
    return {"_id": f"q{number}", "question": f"Question {number}?", "answer": answer, "type": "bridge",
            "supporting_facts": [["A", 0]], "context": [["A", ["One."]], ["B", ["Two."]]]}  # fmt: skip


def questions(path, *rows):
    path.write_text(json.dumps(list(rows)))
    return path


def games(folder, *names):
    """Official game files, with one of the generator's games each."""
    env = EnvFactory("steppo/ALFWorld-v0", {"split": "test_seen", "difficulty": "easy"}).make()
    for number, name in enumerate(names):
        trial = folder / "valid_seen" / name / "trial"
        trial.mkdir(parents=True)
        content = json.loads(env.task_content(env.task_ids[number]))
        (trial / "game.tw-pddl").write_text(json.dumps({**content, "solvable": True}))
        (trial / "traj_data.json").write_text('{"task_type": "pick_and_place_simple"}')
    return folder


def test_a_panel_is_plain_json_that_reads_back(tmp_path):
    panel = make_panel("small", KEY_DOOR, number=3)
    write_panel(panel, tmp_path / "small.json")
    content = json.loads((tmp_path / "small.json").read_text())
    assert content.keys() == {"name", "environment", "source", "tasks"}
    assert [task["id"] for task in content["tasks"]] == ["test-0", "test-1", "test-2"]
    assert read_panel(tmp_path / "small.json") == panel == open_panel(str(tmp_path / "small.json"))


def test_the_hash_is_of_environment_and_tasks_in_their_order_alone():
    panel = make_panel("a", KEY_DOOR, number=3)
    assert replace(panel, name="b", source=PanelSource("files")).hash == panel.hash
    assert replace(panel, tasks=panel.tasks[::-1]).hash != panel.hash
    assert replace(panel, environment="x").hash != panel.hash
    assert panel.first(2).hash == make_panel("c", KEY_DOOR, number=2).hash != panel.hash
    for number in (-1, 0):
        with pytest.raises(ValueError, match=f"Expected at least 1 task, got {number}"):
            panel.first(number)
        with pytest.raises(ValueError, match=f"Expected at least 1 task, got {number}"):
            make_panel("c", KEY_DOOR, number=number)
    # As docs/panels.md says, so that other code can.
    plain = [[panel.environment], [{"id": task.id, "hash": task.hash} for task in panel.tasks]]
    text = json.dumps([plain[0][0], plain[1]], sort_keys=True, separators=(",", ":"))
    assert panel.hash == hashlib.sha256(text.encode()).hexdigest()


def test_hashes_depend_on_the_task_and_on_nothing_else(tmp_path):
    one = make_panel("one", KEY_DOOR, number=20)
    kwargs = {"split": "test", "context": "append", "action_format": "tool_call", "protocol": "verl-agent"}
    assert make_panel("two", EnvFactory("steppo/KeyDoor-v0", kwargs), number=20).hash == one.hash
    assert len({task.hash for task in one.tasks}) == 20
    data = questions(tmp_path / "dev.json", row(1), row(2))
    (first, second) = make_panel("qa", EnvFactory("steppo/HotpotQA-v0", {"split": "validation", "data": data})).tasks
    content = '{"answers":["yes"],"question":"Question 1?"}'
    assert first == PanelTask("q1", hashlib.sha256(content.encode()).hexdigest())
    assert second.hash != first.hash


def test_an_environment_of_ones_own_has_panels_by_what_it_says_first(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1]))
    spec = EnvFactory("rollout_envs:steppo-test/Walk-v0")
    panel = make_panel("walk", spec)
    assert len({task.hash for task in panel.tasks}) == 3
    env = spec.make()
    assert check_panel(panel, env) == []


def test_a_place_on_this_machine_is_not_kept(tmp_path):
    data = questions(tmp_path / "dev.json", row(1))
    panel = make_panel("qa", EnvFactory("steppo/HotpotQA-v0", {"split": "validation", "data": str(data)}))
    assert panel.source == PanelSource("files", {"split": "validation"})


def test_a_panel_names_no_places(tmp_path):
    spec = EnvFactory("steppo/PaperSearch-v0", {"split": "test", "relevance": "http://127.0.0.1:9"})
    panel = make_panel("papers", spec, number=1)
    assert panel.source.arguments == {"split": "test"}
    for argument in ({"retriever": "/x"}, {"relevance": "https://h"}):
        write_panel(replace(panel, source=PanelSource("built-in", argument)), tmp_path / "panel.json")
        with pytest.raises(DataError, match=f"A panel names no places, .* has the argument '{next(iter(argument))}'"):
            read_panel(tmp_path / "panel.json")


def test_check_finds_a_changed_answer_a_missing_question_and_another_order(tmp_path, capsys):
    data = questions(tmp_path / "dev.json", *map(row, range(6)))
    panel = str(tmp_path / "panel.json")
    place = ["--data", str(data), "--quiet"]
    assert main(["panel", "make", "--env", "hotpotqa", "--split", "validation", "--out", panel, *place]) == 0
    assert main(["panel", "check", panel, *place]) == 0
    assert "6 tasks, all as they should be" in capsys.readouterr().out
    questions(data, row(0), row(3), row(2, "no"), row(1), row(5))
    assert main(["panel", "check", panel, *place]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["changed", "missing", "order"]
    assert "q2" in lines[0] and "q4" in lines[1]
    assert lines[2] == "order: task 2 of the panel is q1, in the data q3 stands there."


def test_check_finds_a_changed_and_a_missing_game(tmp_path, capsys):
    names = [f"pick_and_place_simple-Mug-None-Shelf-{number}" for number in range(4)]
    folder = games(tmp_path / "data", *names)
    panel = str(tmp_path / "panel.json")
    place = ["--data", str(folder), "--quiet"]
    assert main(["panel", "make", "--env", "alfworld", "--split", "valid_seen", "--out", panel, *place]) == 0
    first, *_ = json.loads(Path(panel).read_text())["tasks"]
    game = folder / "valid_seen" / names[0] / "trial" / "game.tw-pddl"
    assert first["hash"] == hashlib.sha256(game.read_bytes()).hexdigest()
    capsys.readouterr()
    game.write_bytes(game.read_bytes() + b"\n")
    shutil.rmtree(folder / "valid_seen" / names[2])
    assert main(["panel", "check", panel, *place]) == 1
    changed, missing = capsys.readouterr().out.splitlines()
    assert changed.startswith(f"changed: valid_seen/{names[0]}/trial has the hash")
    assert missing == f"missing: valid_seen/{names[2]}/trial is not in the data."
    assert main(["panel", "check", panel]) == 1
    assert "is of official files. Say where yours are: --data PATH." in capsys.readouterr().err


@pytest.mark.parametrize("env", ["KeyDoor", "ALFWorld", "WebShop", "MuSiQue", "PaperSearch"])
def test_content_of_an_unknown_task_is_refused(env):
    with pytest.raises(UnknownTaskError, match="nowhere/7"):
        EnvFactory(f"steppo/{env}-v0").make().task_content("nowhere/7")


@pytest.mark.parametrize("name", sorted(SHIPPED))
def test_shipped_panels_are_those_of_the_data(name):
    """The first tasks alone: the games of ALFWorld take a while to make."""
    panel = SHIPPED[name]
    assert panel.name == name and len(panel.tasks) >= 100
    if panel.source.data == "files":
        return
    env = EnvFactory(panel.environment, panel.source.arguments).make()
    assert [task.id for task in panel.tasks] == list(env.task_ids)
    assert check_panel(panel.first(3), env) == []


def test_every_built_in_environment_has_a_shipped_panel(capsys):
    assert len({panel.environment for panel in SHIPPED.values()}) == 7
    assert main(["panel", "list"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == list(SHIPPED)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[1", "no readable panel"),
        ("[]", "is no panel: expected an object with name, environment, tasks, source, found"),
        ('{"name": "a", "environment": "b", "tasks": [{"id": "x"}], "source": {"data": "files", "arguments": {}}}',
         r"exactly id, hash in tasks\[0\]"),
        ('{"name": "a", "environment": "b", "tasks": [], "source": {"data": "files", "arguments": {}}}',
         "at least one task, 'a' has none"),
        ('{"name": "a", "environment": "b", "source": {"data": "files", "arguments": {}}, '
         '"tasks": [{"id": "x", "hash": "1"}, {"id": "x", "hash": "1"}]}', "each task once, 'a' has 'x' again"),
    ],
)  # fmt: skip
def test_files_that_are_no_panels(tmp_path, content, message):
    (tmp_path / "p.json").write_text(content)
    with pytest.raises(DataError, match=message):
        read_panel(tmp_path / "p.json")


MODULE_PANEL = {
    "name": "walk",
    "environment": "panel_module:steppo-test/Panel-v0",
    "source": {"data": "built-in", "arguments": {}},
    "tasks": [{"id": "walk-3", "hash": "0"}],
}


def test_a_panel_from_elsewhere_imports_nothing_that_was_not_asked_for(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("panel_module.py").write_text("open('imported', 'w').close()\n")
    Path("panel.json").write_text(json.dumps(MODULE_PANEL))
    asking = ["evaluate", "--server", "http://127.0.0.1:9", "--chat", "--model", "m", "--workers", "0", "--panel"]
    for command in (["panel", "check"], asking):
        assert main([*command, "panel.json"]) == 1
        assert "imports the module panel_module. If you know it, give it as --env" in capsys.readouterr().err
        assert not Path("imported").exists()
        assert main([*command, "panel.json", "--env", "key_door"]) == 1
        assert "is of panel_module:steppo-test/Panel-v0, --env says key_door" in capsys.readouterr().err
    monkeypatch.setattr("sys.path", [*sys.path])
    assert main(["panel", "check", "panel.json", "--env", MODULE_PANEL["environment"]]) == 1
    assert Path("imported").exists()


def test_names_in_a_panel_do_nothing_to_the_terminal(tmp_path, capsys):
    names = {"name": "a\x1b[2J", "tasks": [{"id": "nowhere\x1b]0;title\x07", "hash": "1"}]}
    path = tmp_path / "panel.json"
    path.write_text(json.dumps(MODULE_PANEL | {"environment": "steppo/KeyDoor-v0"} | names))
    assert main(["panel", "check", str(path), "--quiet"]) == 1
    assert capsys.readouterr().out == "missing: nowhere ]0;title  is not in the data.\n"
    assert main(["evaluate", "--server", "http://127.0.0.1:9", "--chat", "--model", "m", "--panel", str(path)]) == 1
    assert capsys.readouterr().err.removesuffix("\n").isprintable()


def test_an_unknown_name_lists_the_panels():
    with pytest.raises(DataError, match=r"no file 'keydoor', and no panel of this name.*key_door-test"):
        open_panel("keydoor")


def test_tasks_twice_are_refused():
    with pytest.raises(DataError, match="each task once"):
        Panel("a", "b", [PanelTask("x", "1")] * 2, PanelSource("files"))


def test_an_environment_without_a_split_of_the_name_test_asks_for_one(tmp_path, capsys):
    command = ["panel", "make", "--env", "alfworld", "--out", str(tmp_path / "panel.json")]
    assert main(command) == 1
    assert capsys.readouterr().err.startswith("steppo-gym: Give --split: split must be one of 'train', 'valid_seen', ")
    assert main([*command, "--split", "tset_seen"]) == 1
    assert capsys.readouterr().err.startswith("steppo-gym: split must be one of 'train', 'valid_seen', ")
