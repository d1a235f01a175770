from __future__ import annotations

import json
import os
import re
import shutil
import threading
from argparse import Namespace

import pytest
from trainer_runs import SMALL_RUN

from steppo_gym.cli import main
from steppo_gym.evaluation.commands import _panel_and_env
from steppo_gym.evaluation.panels import make_panel, write_panel
from steppo_gym.evaluation.playing import Playing
from steppo_gym.registration import env_id_of
from steppo_gym.rollouts.codec import ByteCodec
from steppo_gym.rollouts.episode import read_episodes
from steppo_gym.rollouts.policies import Response
from steppo_gym.rollouts.pool import EnvFactory, EnvPool
from steppo_gym.storage import retrying_client
from steppo_gym.testing.chat_server import ScriptedChatServer
from steppo_gym.testing.completions_server import CompletionsServer, TableModel
from steppo_gym.trainers.results.saved_policy import SavedPolicy
from steppo_gym.trainers.rules import StepPO
from steppo_gym.trainers.run.launch import launch
from steppo_gym.trainers.run.starts import SHIPPED
from steppo_gym.view.episode_file import EpisodeFile
from steppo_gym.view.run_folder import open_runs

CODEC = ByteCodec()
SPEC = EnvFactory("steppo/KeyDoor-v0", {"split": "test", "context": "append"})


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setattr(retrying_client, "FIRST_DELAY_SECONDS", 0.01)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    launch(StepPO, [f"--{name}={value}" for name, value in (SMALL_RUN | {"output_dir": folder}).items()])
    return folder


def summary_of(folder):
    return json.loads((folder / "summary.json").read_text())


class StreamPolicy:
    """Its words depend on the stream alone, as a sampling policy's; fails after some calls if told to."""

    needs_expert = False

    def __init__(self, calls=None):
        self.calls, self.seen = calls, []

    def respond(self, requests):
        if self.calls is not None:
            self.calls -= 1
            if self.calls < 0:
                raise KeyboardInterrupt
        self.seen += [request.stream for request in requests]
        words = ("look", "read note", "open box", "open bag")
        texts = [f"<action>{words[hash(request.stream) % 4]}</action>" for request in requests]
        return [Response(CODEC.encode_response(text)) for text in texts]


def play(file, *, tries=2, calls=None, tasks=5):
    policy = StreamPolicy(calls)
    playing = Playing(make_panel("p", SPEC, number=tasks), tries=tries, file=file)
    with EnvPool(SPEC, num_slots=4) as pool:
        return playing.run(policy, pool, CODEC, show=False), policy


def texts(episodes):
    return [(episode.task_id, episode.seed, [step.response for step in episode.steps]) for episode in episodes]


def test_an_evaluation_gives_the_test_figures_of_the_training_run(trained, tmp_path, capsys):
    told = summary_of(trained)["after"]
    command = ["evaluate", "--model", str(trained), "--tasks", "6", "--workers", "0", "--quiet"]
    assert main([*command, "--out", str(tmp_path / "greedy")]) == 0
    assert summary_of(tmp_path / "greedy")["scores"] == told["greedy"]["test"]
    assert f"success       {100 * told['greedy']['test']['success']:.1f} %" in capsys.readouterr().out
    assert main([*command, "--temperature", "1", "--out", str(tmp_path / "sampled")]) == 0
    assert summary_of(tmp_path / "sampled")["scores"] == told["sampled"]["test"] != told["greedy"]["test"]
    # More tries leave the first ones as they are.
    assert main([*command, "--tries", "2", "--out", str(tmp_path / "sampled")]) == 0
    (file,) = (tmp_path / "sampled" / "episodes").iterdir()
    first = list(read_episodes(file))[:6]
    assert texts(first) == texts(read_episodes(trained / "episodes" / "after-test-sampled.jsonl"))
    assert (tmp_path / "sampled" / "tokenizer" / "tokenizer.json").exists()


def test_a_shipped_policy_has_the_figures_that_a_run_from_it_began_with(tmp_path, capsys):
    small = {"iterations": 1, "episodes_per_iteration": 2, "updates_per_iteration": 1, "num_slots": 2}
    held_out = {"test_tasks": 2, "validation_tasks": 1, "num_env_workers": 0, "report_to": "none"}
    flags = {"env": "alfworld", "output_dir": tmp_path / "run", **small, **held_out}
    launch(StepPO, [f"--{name}={value}" for name, value in flags.items()])
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["start"]["name"] == "alfworld-easy"
    keywords = json.loads((SHIPPED / "alfworld-easy" / "card.json").read_text())["environment"]["kwargs"]
    command = ["evaluate", "--model", str(SHIPPED / "alfworld-easy"), "--env", "alfworld", "--split", "test_seen"]
    command += ["--env_args", *(f"{name}={value}" for name, value in keywords.items())]
    command += ["--max_tokens", str(config["config"]["max_completion_length"])]
    command += ["--tasks", "2", "--slots", "2", "--workers", "0", "--quiet"]
    assert main([*command, "--out", str(tmp_path / "out")]) == 0
    assert summary_of(tmp_path / "out")["scores"] == summary_of(tmp_path / "run")["before"]["greedy"]["test_seen"]
    # Without a split, that of the run's own tests: ALFWorld has none that is called "test".
    command = ["evaluate", "--model", str(tmp_path / "run"), "--tasks", "2", "--workers", "0", "--quiet"]
    assert main([*command, "--out", str(tmp_path / "own")]) == 0
    assert summary_of(tmp_path / "own")["scores"] == summary_of(tmp_path / "run")["after"]["greedy"]["test_seen"]
    assert "Playing test_seen; the run was also tested on test_unseen (--split)." in capsys.readouterr().out


def test_a_summary_names_panel_model_and_interval(trained, tmp_path):
    out = tmp_path / "out"
    flags = ["--panel", "key_door-test", "--tasks", "4", "--workers", "0", "--quiet", "--out", str(out)]
    assert main(["evaluate", "--model", str(trained / "final"), *flags]) == 0
    summary = summary_of(out)
    panel = make_panel("x", SPEC, number=4)
    assert (summary["panel"], summary["panel_hash"]) == ("key_door-test-first-4", panel.hash)
    assert (summary["tasks"], summary["tries"], summary["failed_episodes"]) == (4, 1, 0)
    assert summary["env_kwargs"]["context"] == "append" and summary["max_tokens"] == 7
    assert summary["success"]["method"] == "Wilson's 95 % interval"
    before = summary["policy"]["hash"]
    weights = trained / "final" / "model.safetensors"
    content = weights.read_bytes()
    try:
        weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        # The model is another one, so the folder is not gone on with.
        assert main(["evaluate", "--model", str(trained / "final"), *flags]) == 1
    finally:
        weights.write_bytes(content)
    assert len(before) == 64


def test_a_model_can_be_named_as_on_the_hub(trained, tmp_path, monkeypatch, capsys):
    commit, cache = "0" * 40, tmp_path / "cache"
    (cache / "models--someone--doors" / "refs").mkdir(parents=True)
    (cache / "models--someone--doors" / "refs" / "main").write_text(commit)
    shutil.copytree(trained / "final", cache / "models--someone--doors" / "snapshots" / commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    flags = ["--panel", "key_door-test", "--tasks", "2", "--env_args", "context=append", "--max_tokens", "7"]
    flags += ["--workers", "0", "--quiet", "--out"]
    assert main(["evaluate", "--model", "someone/doors", *flags, "named"]) == 0
    assert main(["evaluate", "--model", str(trained), *flags, "folder"]) == 0
    assert summary_of(tmp_path / "named")["policy"]["hash"] == summary_of(tmp_path / "folder")["policy"]["hash"]
    assert summary_of(tmp_path / "named")["scores"] == summary_of(tmp_path / "folder")["scores"]
    capsys.readouterr()
    assert main(["evaluate", "--model", "someone/windows", *flags, "none"]) == 1
    said = capsys.readouterr().err
    assert "There is no folder someone/windows, and no such model comes from the hub" in said and said.count("\n") == 1
    # Where the first part is a folder, the second one is a slip.
    (tmp_path / "someone").mkdir()
    assert main(["evaluate", "--model", "someone/doors", *flags, "slip"]) == 1
    assert "got someone/doors" in capsys.readouterr().err


def test_what_was_cut_goes_on_to_the_same_episodes(tmp_path):
    whole, _ = play(tmp_path / "whole.jsonl")
    file = tmp_path / "cut.jsonl"
    with pytest.raises(KeyboardInterrupt):
        play(file, calls=30)
    kept = len(list(read_episodes(file)))
    assert 0 < kept < 10
    with file.open("a") as half:
        half.write('{"task_id": "test-')
    episodes, policy = play(file)
    assert texts(episodes) == texts(whole)
    assert len({number for number, _ in policy.seen}) == 10 - kept
    assert texts(read_episodes(file)) == sorted(texts(whole), key=lambda entry: entry[1])
    # Nothing is left, so nothing is played.
    assert play(file)[1].seen == []
    assert [episode.task_id for episode in episodes] == [f"test-{i}" for i in range(5) for _ in range(2)]


def test_a_chat_server_plays_a_panel_and_failures_count_until_they_are_played_again(tmp_path, capsys):
    fail, lock = [True], threading.Lock()

    def answer(request):
        # A message that no server may send fails its episode and those asked beside it.
        with lock:
            if fail[0] and len(server.requests) == 3:
                return {"content": 7}
        return {"content": "<action>read note</action>"}

    flags = [
        "--env",
        "key_door",
        "--tasks",
        "5",
        "--workers",
        "0",
        "--slots",
        "2",
        "--quiet",
        "--out",
        str(tmp_path / "o"),
    ]
    with ScriptedChatServer(answer) as server:
        command = ["evaluate", "--server", server.url, "--chat", "--model", "scripted", *flags]
        assert main(command) == 0
        first = summary_of(tmp_path / "o")
        assert 1 <= first["failed_episodes"] <= 2
        assert first["scores"]["failed_rate"] == pytest.approx(first["failed_episodes"] / 5)
        assert first["success"]["effective_size"] == 5 or first["success"]["mean"] == 0
        said = capsys.readouterr().out
        assert f"failed        {first['failed_episodes']} episodes, counted as not solved" in said
        fail[0] = False
        asked = len(server.requests)
        os.link(tmp_path / "o" / "summary.json", tmp_path / "summary.json")
        assert main(command) == 0
    assert f"{first['failed_episodes']} of 5 episodes are left to play" in capsys.readouterr().out
    assert len(server.requests) == asked + 10 * first["failed_episodes"]
    assert summary_of(tmp_path / "o")["failed_episodes"] == 0
    # The new summary takes the place of the old one, which nothing was written into.
    assert summary_of(tmp_path) == first
    assert summary_of(tmp_path / "o")["policy"] == {
        "server": server.url, "chat": True, "model": "scripted", "hash": None
    }  # fmt: skip
    # Its ids are bytes, and what is left behind says so: the viewer shows text.
    (run,) = open_runs([tmp_path / "o"])
    (shown,) = EpisodeFile(run.episode_file(run.episode_files()[0]), run.tokenizer_file()).steps(0, 0, 1)
    assert "<user>Goal: open the" in shown["observation"] and shown["observation"].endswith("<assistant>")
    assert "".join(shown["pieces"]) == "<action>read note</action>"


def test_responses_that_a_server_cut_are_counted(tmp_path, capsys):
    """As those of a model whose thoughts take all tokens, so that it says nothing."""
    with ScriptedChatServer(lambda request: {"content": "", "finish_reason": "length"}) as server:
        flags = ["--env", "key_door", "--tasks", "1", "--workers", "0", "--quiet", "--out", str(tmp_path / "out")]
        assert main(["evaluate", "--server", server.url, "--chat", "--model", "scripted", *flags]) == 0
    said = capsys.readouterr().out
    assert "cut           10 responses at --max_tokens 512; a model that thinks first needs more" in said
    assert summary_of(tmp_path / "out")["scores"]["invalid_rate"] == 1


def test_keywords_of_a_run_are_of_its_own_environment(tmp_path):
    preset = {"env_id": "steppo/HotpotQA-v0", "test_splits": ["test"], "official_splits": {}}
    run = {"preset": preset, "config": {}, "model": {}, "env_kwargs": {"top_k": 2, "context": "append"}}
    saved = SavedPolicy(tmp_path, run)
    for panel, kept in (("key_door-test", {}), ("hotpotqa-built_in-test", run["env_kwargs"])):
        options = Namespace(panel=panel, tasks=1, env=None, quiet=True)
        spec = _panel_and_env(options, {}, saved)[1]
        assert spec.kwargs == {"split": "test", **kept}


def test_a_changed_task_is_not_played(tmp_path, capsys):
    panel = make_panel("p", SPEC, number=3)
    write_panel(panel, tmp_path / "p.json")
    content = (tmp_path / "p.json").read_text().replace(panel.tasks[1].hash, "0" * 64)
    (tmp_path / "p.json").write_text(content)
    flags = ["--chat", "--model", "m", "--panel", str(tmp_path / "p.json"), "--workers", "0", "--quiet"]
    assert main(["evaluate", "--server", "http://127.0.0.1:1", *flags]) == 1
    assert "differ from the panel p in 1 places, first: changed: test-1 has the hash" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--model", "nowhere"], "Expected the folder of a model.*got nowhere"),
        (["--model", "x", "--tries", "0"], "--tries must be at least 1, got 0"),
        (["--model", "x", "--tries", "2", "--temperature", "0"], "At temperature 0 all tries of a task are the same"),
        (["--model", "x", "--temperature", "nan"], "--temperature must be 0 or a higher number, got nan"),
        (["--model", "x", "--seed", "-1"], "--seed must be at least 0, got -1"),
        (["--model", "x", "--workers", "-1"], "--workers must be at least 0, got -1"),
        (["--model", "x", "--chat"], "--chat and --tokenizer are about a server"),
        (["--model", "x", "--server", "http://h"], "--server needs either --chat"),
        (["--model", "x", "--panel", "a", "--split", "b"], "Give one of them"),
        (["--model", "x", "--server", "http://h", "--chat"], "Nothing says what to play. Give --panel or --env"),
        (["--model", "x", "--server", "http://h", "--chat", "--env", "keyboard"], "The environment must be one of"),
        (["--model", "x", "--server", "http://h", "--chat", "--panel", "key_door-test", "--env", "musique"],
         "is of steppo/KeyDoor-v0, --env says musique"),
    ],
)  # fmt: skip
def test_mistakes_are_one_line(flags, message, capsys):
    assert main(["evaluate", *flags, "--quiet"]) == 1
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    assert re.search(message, error), error


def test_prompts_too_long_for_a_server_end_their_episodes_as_with_a_model(trained, tmp_path, capsys):
    command = ["evaluate", "--model", "tiny", "--tokenizer", str(trained / "final"), "--panel", "key_door-test"]
    command += ["--tasks", "4", "--max_tokens", "7", "--env_args", "context=append", "--workers", "0", "--quiet"]
    with CompletionsServer(lambda folder: TableModel(seed=0), name="tiny", max_model_len=300) as server:
        assert main([*command, "--server", server.url, "--out", str(tmp_path / "short")]) == 0
        assert max(len(request["prompt"]) for request in server.requests) <= 293
    assert summary_of(tmp_path / "short")["failed_episodes"] == 0
    (file,) = (tmp_path / "short" / "episodes").glob("*.jsonl")
    assert all((episode.ended, len(episode.steps)) == ("truncated", 6) for episode in read_episodes(file))
    with CompletionsServer(lambda folder: TableModel(seed=0), name="tiny", max_model_len=7) as server:
        assert main([*command, "--server", server.url, "--out", str(tmp_path / "none")]) == 1
    said = capsys.readouterr().err
    assert "takes contexts of 7 tokens, which leaves no room for a prompt" in said and said.count("\n") == 1


def test_a_server_that_is_not_there_ends_in_one_line(tmp_path, capsys):
    flags = ["--env", "key_door", "--tasks", "2", "--workers", "0", "--quiet", "--out", str(tmp_path)]
    assert main(["evaluate", "--server", "http://127.0.0.1:1", "--chat", "--model", "m", *flags]) == 1
    assert "gave no response in 6 attempts" in capsys.readouterr().err


def test_a_folder_of_something_else_is_left_alone(trained, tmp_path, capsys):
    command = ["evaluate", "--model", str(trained), "--tasks", "1", "--workers", "0", "--quiet"]
    assert main([*command, "--out", str(trained)]) == 1
    assert "holds something else than an evaluation. Name another --out." in capsys.readouterr().err
    assert main([*command, "--out", str(tmp_path)]) == 0
    assert main([*command, "--seed", "1", "--out", str(tmp_path)]) == 1
    assert "holds another evaluation: seed is 0 there, 1 was asked for" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "env_id"),
    [
        ("key_door", "KeyDoor"),
        ("alfworld", "ALFWorld"),
        ("2wiki", "2WikiMultihopQA"),
        ("PaperSearch-v0", "PaperSearch"),
    ],
)
def test_short_names_of_environments(name, env_id):
    assert env_id_of(name) == f"steppo/{env_id}-v0"
    assert env_id_of("mine:any/Env-v3") == "mine:any/Env-v3"
