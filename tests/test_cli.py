import hashlib
import io
import re
import socket
import sys
import zipfile
from dataclasses import replace
from importlib.metadata import entry_points, version
from pathlib import Path

import gymnasium
import pytest
from file_server import Served, serve

import steppo_gym
from steppo_gym.cli import main
from steppo_gym.envs.key_door.env import KeyDoorEnv
from steppo_gym.envs.webshop.data import find_files
from steppo_gym.storage.archives import DATA_SETS, Archive
from steppo_gym.storage.http_server import JsonServer
from steppo_gym.storage.json_handler import JsonHandler


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def archive():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("json_2.1.1/train/a/b/game.tw-pddl", "{}")
    return buffer.getvalue()


def test_download_fetches_unpacks_and_remembers_the_digest(tmp_path, archive, capsys):
    digest = hashlib.sha256(archive).hexdigest()
    with serve(Served(archive)) as served:
        command = ["download", "alfworld", "--data", str(tmp_path), "--quiet", "--url", served.url]
        assert main(command) == 0
        assert (tmp_path / "json_2.1.1/train/a/b/game.tw-pddl").read_text() == "{}"
        assert (tmp_path / "data.zip.sha256").read_text() == f"{digest}  data.zip\n"
        assert f"SHA-256 {digest}: not known before" in capsys.readouterr().out
        # Once more: nothing is fetched; without the zip file it is fetched again, and has the digest.
        assert main(command) == 0
        assert len(served.requests) == 1
        (tmp_path / "data.zip").unlink()
        assert main(command) == 0
        assert len(served.requests) == 2
        assert "not known before" not in capsys.readouterr().out
        # Another file under the same name is refused.
        (tmp_path / "data.zip").unlink()
        served.content = archive[:-1] + b"\x01"
        assert main(command) == 1
    captured = capsys.readouterr()
    assert f"steppo-gym: Expected the SHA-256 {digest}" in captured.err
    assert not (tmp_path / "data.zip").exists()


def test_download_of_a_plain_file_leaves_it_as_it_is(tmp_path, capsys):
    with serve(Served(b"[]")) as served:
        url = served.url.replace("data.zip", "hotpot_train_v1.1.json")
        assert main(["download", "hotpotqa", "--data", str(tmp_path), "--quiet", "--url", url]) == 0
    assert (tmp_path / "hotpot_train_v1.1.json").read_bytes() == b"[]"
    assert "unpacked" not in capsys.readouterr().out


def test_download_of_a_broken_archive_is_one_line(tmp_path, capsys):
    with serve(Served(b"no zip")) as served:
        assert main(["download", "alfworld", "--data", str(tmp_path), "--quiet", "--url", served.url]) == 1
    assert "steppo-gym: Expected an undamaged zip file" in capsys.readouterr().err


def test_download_goes_where_the_variable_says(tmp_path, archive, monkeypatch):
    monkeypatch.setenv("ALFWORLD_DATA", str(tmp_path / "games"))
    with serve(Served(archive)) as served:
        assert main(["download", "alfworld", "--quiet", "--url", served.url]) == 0
    assert (tmp_path / "games/json_2.1.1/train/a/b/game.tw-pddl").exists()


def one_file(monkeypatch, *urls: str, content: bytes = b"[]") -> None:
    """Make "webshop" a data set of one file with these addresses."""
    archive = Archive(urls[0], hashlib.sha256(content).hexdigest(), urls[1:])
    data_set = replace(DATA_SETS["webshop"], archives=(archive,))
    monkeypatch.setitem(DATA_SETS, "webshop", data_set)


def test_download_goes_on_to_the_next_address(tmp_path, monkeypatch, capsys):
    with serve(Served(b"gone", statuses=[404])) as gone, serve(Served(b"[1]")) as other, serve(Served(b"[]")) as good:
        urls = [served.url.replace("data.zip", "items_shuffle_1000.json") for served in (gone, other, good)]
        one_file(monkeypatch, *urls)
        assert main(["download", "webshop", "--data", str(tmp_path), "--quiet"]) == 0
        assert [len(served.requests) for served in (gone, other, good)] == [1, 1, 1]
    assert (tmp_path / "items_shuffle_1000.json").read_bytes() == b"[]"
    captured = capsys.readouterr()
    assert [line.split(" -> ")[0] for line in captured.out.splitlines()[:3]] == urls
    assert "answered 404" in captured.err
    assert "Expected the SHA-256" in captured.err


def test_download_without_an_address_that_works_says_what_to_do(tmp_path, monkeypatch, capsys):
    with serve(Served(b"", statuses=[404])) as one, serve(Served(b"", statuses=[410])) as other:
        one_file(monkeypatch, *(served.url.replace("data.zip", "items_human_ins.json") for served in (one, other)))
        assert main(["download", "webshop", "--data", str(tmp_path), "--quiet"]) == 1
    error = capsys.readouterr().err
    assert "none of the 2 known addresses of items_human_ins.json gave the file" in error
    assert "https://github.com/princeton-nlp/WebShop" in error
    assert f"put it into {tmp_path}: a file that is there is checked" in error
    # As it says: the file from elsewhere is taken without any address.
    (tmp_path / "items_human_ins.json").write_bytes(b"[]")
    assert main(["download", "webshop", "--data", str(tmp_path), "--quiet"]) == 0
    (tmp_path / "items_human_ins.json").write_bytes(b"{}")
    assert main(["download", "webshop", "--data", str(tmp_path), "--quiet"]) == 1
    assert capsys.readouterr().err.count("Delete the file") == 1


@pytest.mark.parametrize("name", ["webshop", "webshop-full"])
def test_the_shop_is_made_of_the_files_that_are_fetched(tmp_path, name):
    for archive in DATA_SETS[name].archives:
        assert len(archive.mirrors) == 1
        assert {archive.file_name} == {url.rpartition("/")[2] for url in archive.mirrors}
        assert archive.sha256 is not None
        assert len(bytes.fromhex(archive.sha256)) == 32
        (tmp_path / archive.file_name).write_bytes(b"")
    files = find_files(tmp_path)
    assert sorted(path.name for path in files.paths) == sorted(path.name for path in tmp_path.iterdir())
    assert files.human is not None


@pytest.mark.data
def test_the_digest_of_an_official_file_is_known(shared_data):
    (archive,) = (file for file in DATA_SETS["webshop"].archives if file.file_name == "items_ins_v2_1000.json")
    content = (shared_data / "webshop" / archive.file_name).read_bytes()
    assert hashlib.sha256(content).hexdigest() == archive.sha256


def test_official_archives_are_those_of_the_installed_package():
    script = Path(sys.executable).with_name("alfworld-download")
    if not script.exists():
        pytest.skip("alfworld-download is not next to this Python")
    text = script.read_text()
    assert len(DATA_SETS["alfworld"].archives) == 2
    for archive in DATA_SETS["alfworld"].archives:
        assert f'"{archive.url}"' in text
        assert archive.sha256 is None or len(bytes.fromhex(archive.sha256)) == 32


@pytest.mark.parametrize("url", ["http://127.0.0.1", "http://127.0.0.1/", "http://127.0.0.1/a/.."])
def test_an_archive_has_a_file_name(url):
    with pytest.raises(ValueError, match="ends in a file name, got 'http"):
        Archive(url)


def test_a_file_name_is_the_last_part_of_the_path():
    assert Archive("https://example.org/a/b.zip?c=/d.zip#e/f.zip").file_name == "b.zip"


def test_envs_lists_every_id_with_its_number_of_tasks(capsys):
    assert main(["envs"]) == 0
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert set(lines) == set(steppo_gym.registered_ids())
    assert lines["steppo/KeyDoor-v0"].split() == ["1000", "tasks", "to", "train", "on"]


def test_play_shows_the_expert(capsys):
    assert main(["play", "steppo/KeyDoor-v0", "--expert", "--task_id", "train-1"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("You play a text game.")
    assert "[train-1]\nGoal: open the pink door." in out
    assert "> <action>read note</action>\nThe red key opens the pink door." in out
    assert out.endswith("(reward 1)\n\nThe task is solved. 6 steps; success 1, broken 0, note_read 1\n")


def test_play_takes_actions_from_the_keyboard(capsys, monkeypatch):
    lines = ["", "read note", "<think>so</think><action>open box</action>", "dance"]
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(lines) + "\n"))
    assert main(["play", "steppo/KeyDoor-v0", "--task_id", "validation-3", "--env_args", "split=validation"]) == 0
    out = capsys.readouterr().out
    assert "> You can: read note, open" in out
    assert "key opens the" in out
    assert "There is no box." in out or "You open the box." in out or "The box is locked." in out
    assert "Invalid. Expected one of" in out
    assert out.endswith("Left before the end.\n")


def test_play_and_check_take_the_short_names_of_the_other_commands(capsys):
    assert main(["play", "key_door", "--expert", "--seed", "5"]) == 0
    short = capsys.readouterr().out
    assert main(["play", "steppo/KeyDoor-v0", "--expert", "--seed", "5"]) == 0
    assert short == capsys.readouterr().out
    assert main(["play", "doors"]) == 1
    assert "The environment must be one of steppo/KeyDoor-v0, " in capsys.readouterr().err
    assert main(["check", "KeyDoor", "--episodes", "1"]) == 0


def test_who_plays_is_told_how_to_leave(capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    assert main(["play", "key_door", "--seed", "0"]) == 0
    said = capsys.readouterr().out
    assert "An empty line lists what can be done, Ctrl-D leaves. A line with tags is a whole response." in said


def test_play_writes_what_is_typed_as_the_environment_reads_it(capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("read note\n"))
    assert main(["play", "steppo/KeyDoor-v0", "--seed", "0", "--env_args", "action_format=tool_call"]) == 0
    assert "key opens the" in capsys.readouterr().out
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    assert main(["play", "steppo/KeyDoor-v0", "--env_args", "context=rebuilt"]) == 0


@pytest.mark.parametrize("action_format", ["tag", "tool_call"])
def test_labels_with_signs_of_tags_can_be_clicked(capsys, monkeypatch, action_format):
    lines = ["search[hoodie]", "click[next >]", "click[< prev]"]
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(lines) + "\n"))
    assert main(["play", "webshop", "--seed", "0", "--env_args", f"action_format={action_format}"]) == 0
    said = capsys.readouterr().out
    assert "Nothing happened" not in said
    assert [line.count("Page 1 ") for line in said.splitlines() if line.startswith("> ") and "Page" in line] == [
        1,
        0,
        1,
    ]


class Raises(KeyDoorEnv):
    def __init__(self, **kwargs):
        raise KeyError("no such thing")


gymnasium.register("steppo-test/Raises-v0", entry_point=Raises)


def test_play_says_how_it_ended(capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("read note\n" * 3))
    assert main(["play", "steppo/KeyDoor-v0", "--seed", "0", "--env_args", "max_steps=3"]) == 0
    assert "The task is stopped after 3 steps." in capsys.readouterr().out


def test_check_says_that_an_environment_keeps_the_contract(capsys):
    assert main(["check", "steppo/KeyDoor-v0", "--episodes", "1"]) == 0
    assert capsys.readouterr().out == "steppo/KeyDoor-v0 keeps the contract.\n"


def test_check_says_which_rule_is_broken(capsys):
    # KeyDoor takes no such tag, so its admissible actions are invalid in it.
    assert main(["check", "steppo/KeyDoor-v0", "--episodes", "1", "--tag", "move"]) == 1
    assert "is valid, written as '<move>read note</move>'. Found:" in capsys.readouterr().err


def test_a_module_in_the_working_directory_can_register_the_environment(tmp_path, monkeypatch, capsys):
    code = "import gymnasium\nfrom steppo_gym.envs.key_door.env import KeyDoorEnv\n"
    (tmp_path / "doors_of_mine.py").write_text(f"{code}gymnasium.register('my/Doors-v0', entry_point=KeyDoorEnv)\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(gymnasium.envs.registration, "registry", dict(gymnasium.registry))
    assert main(["play", "doors_of_mine:my/Doors-v0", "--expert"]) == 0
    assert "The task is solved." in capsys.readouterr().out
    assert "doors_of_mine" in sys.modules and str(tmp_path) in sys.path


def test_other_ids_leave_the_working_directory_out(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert main(["play", "steppo/KeyDoor-v0", "--expert"]) == 0
    assert str(tmp_path) not in sys.path


def test_the_same_seed_plays_the_same(capsys):
    for _ in range(2):
        main(["play", "steppo/KeyDoor-v0", "--expert", "--seed", "5"])
    out = capsys.readouterr().out
    assert out[: len(out) // 2] == out[len(out) // 2 :]


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["play", "steppo/KeyDor-v0"], "KeyDor"),
        (["play", "steppo/KeyDoor-v0", "--task_id", "train-x"], "Unknown task_id 'train-x'"),
        (["play", "steppo/KeyDoor-v0", "--env_args", "split"], "Expected NAME=VALUE for a keyword of the environment"),
        (["play", "steppo/KeyDoor-v0", "--env_args", "size=3"], "size"),
        (["play", "no_such_module:my/Env-v0"], "no_such_module"),
        (["play", "steppo/KeyDoor-v0", "--env_args", "max_episode_steps=3"], "is wrapped in TimeLimit"),
        (["play", "steppo-test/Raises-v0"], "KeyError: 'no such thing' (in __init__, "),
        (["check", "steppo-test/Raises-v0"], "KeyError: 'no such thing' (in __init__, "),
        (
            ["panel", "make", "--env", "key_door", "--out", "x.json", "--tasks", "0"],
            "--tasks must be at least 1, got 0",
        ),
        (["view", ".", "--html", "x.html", "--episodes", "-1"], "--episodes must be at least 0, got -1"),
        (["compare", ".", "--score", "50"], "--score is a share from 0 to 1, got 50"),
        (["plot", ".", "--out", "curves"], "--out needs an ending that says the format"),
        (["check", "no_such_module:my/Env-v0"], "gym: No module named 'no_such_module'"),
        (["play", "alfwrld"], "or module:id, got 'alfwrld'. Did you mean alfworld?"),
        (["play", "steppo/KeyDor-v0"], "got 'steppo/KeyDor-v0'. Did you mean steppo/KeyDoor-v0?"),
        (["play", "key_door", "--env_args", "max_step=3"], "split, thought_words. Did you mean max_steps?\n"),
        (["view", "no_such_folder"], "found nothing at "),
        (["download", "alfworld", "--url", "http://127.0.0.1/"], "ends in a file name"),
    ],
)
def test_mistakes_are_one_line_on_stderr(capsys, command, message):
    assert main(command) == 1
    captured = capsys.readouterr()
    assert captured.err.startswith("steppo-gym: ")
    assert message in captured.err
    assert captured.err.count("\n") == 1


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (
            ["play", "steppo/KeyDoor-v0", "--env-arg", "split=test"],
            "play: unknown flag --env-arg. Did you mean --env_args?",
        ),
        (
            ["play", "steppo/KeyDoor-v0", "--env_arg=split=test"],
            "play: unknown flag --env_arg. Did you mean --env_args?",
        ),
        (["play", "steppo/KeyDoor-v0", "--task-id", "a"], "unknown flag --task-id. Did you mean --task_id?"),
        (["check", "steppo/KeyDoor-v0", "--episods", "3"], "check: unknown flag --episods. Did you mean --episodes?"),
        (["download", "alfworld", "--data-dir", "x"], "download: unknown flag --data-dir. Did you mean --data?"),
        (["envs", "--zzz"], "envs: unknown flag --zzz."),
        (["envs", "x\ny"], "envs: unexpected argument 'x\\ny'."),
        (["--versoin"], "the following arguments are required: command."),
        (["play", "steppo/KeyDoor-v0", "--exp"], "unknown flag --exp. Did you mean --expert?"),
        (["serve-search", "x", "--port", "abc"], "argument --port: invalid int value: 'abc'."),
        (["download", "hotpot"], "got 'hotpot'. Did you mean hotpotqa?"),
        (["evalute"], "got 'evalute'. Did you mean evaluate?"),
        ([], "the following arguments are required: command."),
    ],
)
def test_arguments_that_are_none_are_one_line_and_status_two(capsys, command, message):
    with pytest.raises(SystemExit, match="2"):
        main(command)
    captured = capsys.readouterr()
    assert captured.err.startswith("steppo-gym") and message in captured.err and "--help says more" in captured.err
    assert captured.err.count("\n") == 1 and captured.out == ""


def test_help_lists_every_command_in_the_order_of_first_use(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    shown = capsys.readouterr().out
    listed = [line.split()[0] for line in shown.splitlines() if re.match(" {4}[a-z]", line)]
    assert listed[:4] == ["envs", "play", "check", "evaluate"] and len(listed) == len(set(listed)) == 16
    assert "python -m steppo_gym.trainers.steppo --help" in shown


def test_the_version_is_the_packages(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    assert (
        capsys.readouterr().out == f"steppo-gym {steppo_gym.__version__}\n" == f"steppo-gym {version('steppo-gym')}\n"
    )


def test_keywords_of_an_environment_may_come_together_and_apart(capsys):
    flags = ["--env_args", "split=validation", "max_steps=3", "--env_args", "max_steps=4"]
    assert main(["play", "steppo/KeyDoor-v0", "--task_id", "validation-3", "--expert", *flags]) == 0
    assert "stopped after 4 steps" in capsys.readouterr().out


def test_a_server_that_cannot_listen_is_one_line(tmp_path, capsys):
    (tmp_path / "papers.jsonl").write_text('{"paper_id": "a", "title": "A"}')
    (tmp_path / "corpus.jsonl").write_text('{"title": "Moon", "text": "dust"}')
    with socket.create_server(("127.0.0.1", 0)) as taken:
        for command, name in (("serve-papers", "papers"), ("serve-search", "corpus")):
            port = taken.getsockname()[1]
            assert main([command, str(tmp_path / f"{name}.jsonl"), "--port", str(port)]) == 1
            error = capsys.readouterr().err
            assert f"127.0.0.1 port {port} cannot be listened on: Address already in use" in error
            assert error.count("\n") == 1
    for flags in (["--port", "70000"], ["--host", "192.0.2.1", "--port", "0"]):
        assert main(["serve-search", str(tmp_path / "corpus.jsonl"), *flags]) == 1
        assert capsys.readouterr().err.count("\n") == 1


def test_an_error_of_many_lines_becomes_one(monkeypatch, capsys):
    def fails(env_id, **kwargs):
        raise ValueError("one\n  two")

    monkeypatch.setattr(gymnasium, "make", fails)
    assert main(["play", "steppo/KeyDoor-v0"]) == 1
    assert capsys.readouterr().err == "steppo-gym: one two\n"


def test_an_interruption_ends_quietly(capsys, monkeypatch):
    def interrupted(prompt):
        raise KeyboardInterrupt

    monkeypatch.setattr("builtins.input", interrupted)
    assert main(["play", "steppo/KeyDoor-v0"]) == 130
    assert capsys.readouterr().err == "\nsteppo-gym: interrupted.\n"


HOSTILE = "\x1b]0;title\x07\x1b[2J\u202e\ud800"


class HostileEnv(KeyDoorEnv):
    """Data of elsewhere with what a terminal would obey."""

    system_prompt = f"Rules. {HOSTILE}"  # pyright: ignore

    def _observation(self, feedback):
        return super()._observation(feedback) + HOSTILE

    def _admissible_actions(self):
        return (f"go {HOSTILE}",)


@pytest.mark.parametrize("flags", [["--expert"], []])
def test_what_data_say_does_nothing_to_the_terminal(flags, monkeypatch, capsys):
    monkeypatch.setattr(gymnasium, "make", lambda *_, **kwargs: HostileEnv(**kwargs))
    lines = iter(["", "look"])
    monkeypatch.setattr("builtins.input", lambda prompt: next(lines))
    assert main(["play", "steppo/KeyDoor-v0", "--env_args", "max_steps=1", *flags]) == 0
    shown = capsys.readouterr().out
    assert "]0;title" in shown and shown.replace("\n", "").isprintable()


def test_an_error_does_nothing_to_the_terminal(monkeypatch, capsys):
    def fails(env_id, **kwargs):
        raise ValueError(HOSTILE)

    monkeypatch.setattr(gymnasium, "make", fails)
    assert main(["play", "steppo/KeyDoor-v0"]) == 1
    assert capsys.readouterr().err.removesuffix("\n").isprintable()


def test_the_command_is_installed():
    (command,) = entry_points(group="console_scripts", name="steppo-gym")
    assert command.load() is main


class _NoExpert(KeyDoorEnv):
    def expert_response(self):
        return super(KeyDoorEnv, self).expert_response()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["panel", "make", "--env", "key_door", "--tasks", "0", "--out", "x.json"],
            "--tasks must be at least 1, got 0",
        ),
        (
            [*("evaluate", "--server", "http://127.0.0.1:1", "--chat", "--model", "x", "--temperature", "nan")],
            "--temperature must be 0 or a higher number, got nan",
        ),
        (
            ["panel", "make", "--env", "key_door", "--env_args", "split=validation", "--out", "x.json"],
            "--env_args: split has a flag of its own. Give it as --split.",
        ),
        (
            [*("panel", "check", "key_door-test", "--data", "a", "--env_args", "data=b")],
            "--env_args: data has a flag of its own. Give it as --data.",
        ),
        (
            ["panel", "make", "--env", "key_door", "--tasks", "201", "--out", "x.json", "--quiet"],
            "Expected at most 200 tasks, as many as there are, got 201.",
        ),
        (
            [
                *("evaluate", "--server", "http://h", "--chat", "--model", "x", "--panel", "key_door-test"),
                "--tasks=201",
            ],
            "Expected at most 200 tasks, as many as there are, got 201.",
        ),
        (["view", "nowhere", "--episodes", "3"], "--episodes is about the page of --html"),
        (["view", "nowhere", "--html", "x.html", "--port", "8000"], "--port is about the server, --html starts none"),
        (["download", "alfworld", "--url", "http://[/x.zip"], "Expected a URL, got 'http://[/x.zip'"),
        (["play", "test/NoExpert-v0", "--expert"], "_NoExpert has no expert"),
    ],
)
def test_values_that_were_taken_for_others_are_refused_in_one_line(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    gymnasium.register("test/NoExpert-v0", entry_point=_NoExpert)
    try:
        assert main(arguments) == 1
    finally:
        del gymnasium.registry["test/NoExpert-v0"]
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("host", ["a\0b", "a" * 300])
def test_a_host_that_is_none_is_named(host):
    with pytest.raises((ValueError, OSError), match=r"host to listen on, got|cannot be listened on"):
        JsonServer(JsonHandler, host=host, port=0, max_body_bytes=1)
