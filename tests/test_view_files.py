"""What the viewer reads from the folders of runs: the same as stands in the records, in pieces of bounded size."""

from __future__ import annotations

import json
import math
import random
import time
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from tokenizers import Tokenizer, decoders, models
from view_runs import HOSTILE, ids, measured, played, write_audit, write_run

from steppo_gym.errors import DataError
from steppo_gym.rollouts.episode import read_episodes
from steppo_gym.view.audit_truth import read_truth
from steppo_gym.view.credit_arrays import read_credit
from steppo_gym.view.episode_file import CURVE_POINTS, PAGE, SHOWN_CHARACTERS, EpisodeFile
from steppo_gym.view.episode_index import index_path
from steppo_gym.view.episode_line import new_tokens, parse_line
from steppo_gym.view.filters import Filters
from steppo_gym.view.overview import overview
from steppo_gym.view.response_parts import split_response
from steppo_gym.view.run_folder import differing, open_runs
from steppo_gym.view.token_text import TokenizerText

WIN = [
    ("A lamp and a sofa.", "<think>light</think><action>take lamp</action>"),
    ("Taken.", "<action>use lamp</action>"),
]
LOSE = [("A lamp and a sofa.", "<action>take sofa</action>"), ("You cannot.", "sit"), ("Nothing.", "sit")]
EPISODES = [
    played("cellar-1", WIN, success=True, group=0),
    played("cellar-1", LOSE, ended="truncated", group=0, invalid=(1, 2)),
    played("attic-2", LOSE[:2], group=1, reward=-0.5, invalid=(1,)),
    played("attic-2", WIN, ended="failed", group=1),
    played("attic-3", WIN, success=True, group=2, context="rebuilt"),
]


@pytest.fixture
def run(tmp_path):
    return write_run(tmp_path / "run", {"iteration-0001": EPISODES, "after-test-greedy": EPISODES[:1]})


def opened(run: Path, name: str = "iteration-0001.jsonl") -> EpisodeFile:
    (found,) = open_runs([run])
    return EpisodeFile(found.episode_file(name), found.tokenizer_file())


def numbers(file: EpisodeFile, **filters: object) -> list[int]:
    return [row["number"] for row in file.listing(Filters(**filters), 0, PAGE)["episodes"]]  # type: ignore[arg-type]


def test_a_line_comes_apart_as_json_reads_it():
    rng = random.Random(5)
    texts = ["plain", HOSTILE, '"steps": [', "}]", "ä😀", "\\"]
    for _ in range(200):
        steps = [
            {"response": rng.choice(texts), "prompt_ids": [], "n": [{"a": [1]}, rng.random()]}
            for _ in range(rng.randrange(4))
        ]
        record = {"task_id": rng.choice(texts), "steps": steps, "ended": "x", "metrics": {"steps": [1]}}
        items = list(record.items())
        rng.shuffle(items)
        line = json.dumps(dict(items), ensure_ascii=rng.random() < 0.5, indent=rng.choice([None, 1])).encode()
        parsed = parse_line(line)
        assert parsed.fields | {"steps": [step.data for step in parsed.steps]} == record
        assert [json.loads(line[step.start : step.end]) for step in parsed.steps] == steps


@pytest.mark.parametrize(
    "line", [b"", b"{", b"[]", b'{"task_id": "a"}', b'{"task_id": 1, "ended": "x"}', b"\xff", b'{"steps": [1]}']
)
def test_what_is_no_episode_is_said(line):
    with pytest.raises(DataError, match="expected one episode as JSON"):
        parse_line(line)


def test_new_tokens_are_those_between_what_both_have():
    rng = random.Random(2)
    for _ in range(500):
        old, new = ([rng.randrange(3) for _ in range(rng.randrange(7))] for _ in range(2))
        start, end = new_tokens(new, old)
        assert 0 <= start <= end <= len(new)
        assert new[:start] == old[:start]
        assert new[end:] == old[len(old) - (len(new) - end) :]
        # As little as there can be.
        if start < end and start + len(new) - end < len(old):
            assert new[start] != old[start]
    assert new_tokens([1, 2, 3], []) == (0, 3)


@pytest.mark.parametrize(
    ("response", "parts"),
    [
        ("<think>why</think><action>go</action>", ("why", "go")),
        ("why</think>\n<action>go</action>", ("why", "go")),
        ("<think>cut off", ("cut off", "")),
        ("<think><action>a</action></think>so <answer>c</answer>.", ("<action>a</action>", "c")),
        # Several calls are one action: no single one of them stands for it.
        ("<think>t</think><search>b</search><expand>7</expand>", ("t", "<search>b</search><expand>7</expand>")),
        ("</action>go<action>", ("", "</action>go<action>")),
        ("go north", ("", "go north")),
        ("", ("", "")),
    ],
)
def test_a_response_is_split_into_thought_and_action(response, parts):
    assert split_response(response) == parts


def test_tags_that_are_never_closed_take_no_time():
    started = time.process_time()
    for opening in ("<a>", "<think>", "</a>"):
        split_response(opening * (SHOWN_CHARACTERS // len(opening)))
    assert time.process_time() - started < 0.2


def test_the_listing_has_every_episode_and_its_facts(run):
    listing = opened(run).listing(Filters(), 0, PAGE)
    assert (listing["total"], listing["all"]) == (5, 5)
    for row, episode in zip(listing["episodes"], read_episodes(run / "episodes" / "iteration-0001.jsonl"), strict=True):
        assert (row["task"], row["ended"], row["steps"]) == (episode.task_id, episode.ended, episode.num_steps)
        assert row["reward"] == episode.total_reward and bool(row["success"]) == episode.success
        assert row["invalid"] == sum(step.invalid_action is not None for step in episode.steps)
        assert row["metrics"] == episode.metrics
    assert listing["episodes"][3]["failure"] == "worker: died"


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({"success": True}, [0, 4]),
        ({"success": False}, [1, 2, 3]),
        ({"ended": "failed"}, [3]),
        ({"task": "ATTIC"}, [2, 3, 4]),
        ({"invalid": True}, [1, 2]),
        ({"invalid": False, "success": False}, [3]),
        ({"min_steps": 3}, [1]),
        ({"max_steps": 2, "success": False}, [2, 3]),
        ({"max_reward": -0.1}, [2]),
        ({"min_reward": 0.5}, [0, 4]),
        ({"text": "take SOFA"}, [1, 2]),
        ({"text": "nothing."}, [1]),
        ({"text": "%"}, []),
        ({"task": "_"}, []),
        ({"sort": "reward", "descending": True}, [0, 4, 1, 3, 2]),
        ({"sort": "task"}, [2, 3, 4, 0, 1]),
    ],
)
def test_filters(run, filters, expected):
    assert numbers(opened(run), **filters) == expected


def test_filters_are_read_from_an_address():
    assert Filters.read({"success": "no", "min_steps": "3", "max_reward": "0.5", "text": "a", "other": "1"}) == Filters(
        success=False, min_steps=3, max_reward=0.5, text="a"
    )
    assert Filters.read({"success": "", "text": ""}) == Filters()
    for query in ({"success": "1"}, {"min_steps": "x"}, {"sort": "steps; DROP TABLE steps"}):
        with pytest.raises(ValueError, match=f"^{next(iter(query))} "):
            Filters.read(query)


def test_pages_put_together_are_the_whole_listing(run):
    file = opened(run)
    pages = [file.listing(Filters(sort="steps"), offset, 2)["episodes"] for offset in (0, 2, 4, 6)]
    assert [row["number"] for page in pages for row in page] == numbers(file, sort="steps")
    assert [len(page) for page in pages] == [2, 2, 1, 0]


def test_the_text_that_is_found_says_in_which_step(run):
    rows = opened(run).listing(Filters(text="you cannot"), 0, PAGE)["episodes"]
    assert [(row["number"], row["found"]) for row in rows] == [(1, 1), (2, 1)]
    assert opened(run).find(1, "SIT", 0) == 1
    assert opened(run).find(1, "sit", 2) == 2
    assert opened(run).find(1, "sit", 3) is None


@pytest.mark.parametrize("number", [0, 1, 4])
def test_steps_say_what_the_record_says(run, number):
    episode = EPISODES[number]
    steps = opened(run).steps(number, 0, PAGE)
    assert [step["response"] for step in steps] == [step.response for step in episode.steps]
    assert ["".join(step["pieces"]) for step in steps] == [step.response for step in episode.steps]
    assert [step["reward"] for step in steps] == [step.reward for step in episode.steps]
    assert [step["invalid"] for step in steps] == [step.invalid_action for step in episode.steps]
    assert [step["prompt_tokens"] for step in steps] == [len(step.prompt_ids) for step in episode.steps]
    assert opened(run).steps(number, 1, 1) == steps[1:2]


def test_what_is_new_in_a_prompt_is_shown_apart(run):
    file = opened(run)
    assert [step["observation"] for step in file.steps(1, 0, PAGE)] == ["A lamp and a sofa.", "You cannot.", "Nothing."]
    whole = file.whole(1, 2)
    assert whole["before"] == "A lamp and a sofa.<action>take sofa</action>You cannot.sit"
    assert (whole["observation"], whole["after"], whole["response"]) == ("Nothing.", "", "sit")
    assert not whole["cut"]
    # A rebuilt prompt is compared with the one before; what both begin and end with is not new.
    rebuilt = file.whole(4, 1)
    assert rebuilt["before"].startswith("RULES ") and rebuilt["after"].endswith(" NOW")
    assert rebuilt["before"] + rebuilt["observation"] + rebuilt["after"] == "RULES Taken. NOW"
    assert file.episode(1)["final_text"] == "That was the last step."


def test_credit_stands_with_its_step_and_token(run):
    file = opened(run)
    for number in (0, 1, 2, 4):
        for step in file.steps(number, 0, PAGE):
            assert step["advantage"] == pytest.approx(number + step["number"] / 100)
            assert step["value"] == pytest.approx(2 * step["advantage"])
    assert "advantage" not in file.steps(3, 0, 1)[0]
    assert [file.has_tokens(number) for number in range(5)] == [True, True, False, False, False]
    first = 0
    for number in (0, 1):
        for step, record in zip(file.steps(number, 0, PAGE), EPISODES[number].steps, strict=True):
            assert step["tokens"]["advantage"] == list(range(first, first + len(record.response_ids)))
            first += len(record.response_ids)
    assert "tokens" not in file.steps(2, 0, 1)[0]
    curve = file.episode(1)["curve"]
    assert curve["value"] == pytest.approx([2.0, 2.02, 2.04]) and curve["step"] == [0, 1, 2]
    assert "value" not in opened(run, "after-test-greedy.jsonl").episode(0)["curve"]


def test_mates_took_their_step_in_the_same_state_of_the_same_group(run):
    file = opened(run)
    assert [mate["number"] for mate in file.episode(0)["mates"]] == [1]
    assert [(mate["episode"], mate["number"], mate["action"]) for mate in file.mates(0, 0)] == [
        (0, 0, "take lamp"),
        (1, 0, "take sofa"),
    ]
    assert [mate["episode"] for mate in file.mates(1, 2)] == [1]


def test_another_group_of_the_same_task_is_not_compared(tmp_path):
    groups = [played("cellar-1", WIN, group=group) for group in (0, 1, 0)]
    file = opened(write_run(tmp_path / "run", {"iteration-0001": groups}))
    assert [mate["episode"] for mate in file.mates(1, 0)] == [1] and file.episode(1)["mates"] == []
    assert [mate["episode"] for mate in file.mates(2, 0)] == [0, 2]


def test_an_index_is_built_once_and_again_when_the_file_changes(run, monkeypatch):
    path = run / "episodes" / "iteration-0001.jsonl"
    opened(run)
    index = index_path(path, run / "tokenizer" / "tokenizer.json")
    built = index.stat().st_mtime_ns
    opened(run)
    assert index.stat().st_mtime_ns == built
    with path.open("a") as file:
        file.write(EPISODES[0].to_json() + "\n")
        # As a run leaves it that is writing at this moment.
        file.write(EPISODES[0].to_json()[:50])
    assert opened(run).listing(Filters(), 0, PAGE)["all"] == 6
    assert not index.exists()


def test_an_index_that_another_process_is_building_is_left_alone(run):
    """Of a file that grows, each viewer builds the index of the state it has found."""
    path, tokenizer = run / "episodes" / "iteration-0001.jsonl", run / "tokenizer" / "tokenizer.json"
    index = index_path(path, tokenizer)
    other = index.with_name(f"{index.name.partition('-')[0]}-another.sqlite")
    unfinished, lock = (other.with_name(f"{other.name}.{ending}") for ending in ("unfinished", "lock"))
    index.parent.mkdir(parents=True, exist_ok=True)
    unfinished.write_text("half")
    with FileLock(lock):
        opened(run)
        assert unfinished.read_text() == "half" and lock.exists()
    # Whoever built it was killed.
    index.unlink()
    opened(run)
    assert list(index.parent.glob(f"{other.name}*")) == []


def test_a_damaged_line_is_named(run):
    path = run / "episodes" / "iteration-0001.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text(lines[0] + '{"task_id": "a", "ended": "x", "steps": [{}]}\n')
    with pytest.raises(DataError, match=r"iteration-0001.jsonl, line 2: "):
        opened(run)


@pytest.mark.parametrize(
    "change", [{"seed": []}, {"group": {}}, {"steps": [[]]}, {"failure": 3}, {"metrics": {"a": math.nan}}]
)
def test_a_line_with_a_value_of_another_type_is_named(run, change):
    path = run / "episodes" / "iteration-0001.jsonl"
    first, *others = path.read_text().splitlines(keepends=True)
    path.write_text("".join([first, json.dumps(json.loads(first) | change) + "\n", *others]))
    with pytest.raises(DataError, match=r"iteration-0001.jsonl, line 2: "):
        opened(run)


def test_what_is_no_token_is_shown_as_one_of_no_vocabulary(run):
    path = run / "episodes" / "iteration-0001.jsonl"
    record = json.loads(path.read_text().splitlines()[0])
    record["steps"][0]["response_ids"] = ["x", None, [1], 65, -1, 2**40]
    path.write_text(json.dumps(record) + "\n")
    assert sum(map(bool, opened(run).steps(0, 0, 1)[0]["pieces"])) == 1


def test_bytes_that_are_no_text_are_shown_as_such(tmp_path):
    """Llama's tokenizers decode all bytes in a row together, so one that is wrong changes those before it."""
    vocabulary = {f"<0x{byte:02X}>": byte for byte in range(256)} | {"a": 256, "<unk>": 257}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], byte_fallback=True, unk_token="<unk>"))
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    text = TokenizerText(tmp_path / "tokenizer.json")
    assert text.pieces([*"\n€".encode(), 256]) == ["\n", "", "", "€", "a"]
    assert text.pieces([10, 255, 256, 10, 256]) == ["\n", "", "\ufffda", "\n", "a"]


def test_files_that_are_nested_too_deep_are_named(run):
    (run / "metrics.jsonl").write_text("[" * 100_000 + "\n")
    with pytest.raises(DataError, match=r"metrics.jsonl, line 1: expected JSON"):
        open_runs([run])[0].curves()
    (run / "config.json").write_text("[" * 100_000)
    with pytest.raises(DataError, match=r"config.json: expected JSON"):
        open_runs([run])[0].settings()


@pytest.mark.parametrize("name", ["config.json", "summary.json", "evaluation_before.json"])
def test_files_of_a_run_that_hold_no_object_are_named(run, name):
    (run / name).write_text("[1]")
    with pytest.raises(DataError, match=f"{run / name}: expected a JSON object, found list"):
        overview(open_runs([run]))


@pytest.mark.parametrize(
    "change", [{"place": "x"}, {"episode": None}, {"credit": {"steppo": [1]}}, {"responses": [{}]}, {"deep": "["}]
)
def test_the_truth_of_an_audit_that_is_none_is_named(tmp_path, change):
    truth = [measured(0, place, (0.2, 0.1, 0.3), "other") for place in range(2)]
    episodes = write_audit(tmp_path / "audit", [played("a", [("see", "go")])], truth) / "episodes.jsonl"
    assert len(read_truth(episodes).points()) == 2
    line = json.dumps(truth[0] | change).replace('"["', "[" * 100_000)
    episodes.with_name("truth.jsonl").write_text(f"{line}\n{json.dumps(truth[1])}\n")
    with pytest.raises(DataError, match=r"truth.jsonl: expected the steps of an audit"):
        read_truth(episodes)


def test_damaged_credit_is_refused_and_missing_credit_is_none(run):
    path = run / "episodes" / "iteration-0001.credit.npz"
    with np.load(path) as arrays:
        whole = dict(arrays)
    for damage in (
        {"steps": whole["steps"][:-1]},
        {"value": whole["value"][:-1]},
        {"lines": np.array([{}], object)},
        {"actions": whole["actions"][:-1]},
        {"admissible": whole["admissible"][:-1]},
        {"admissible": whole["admissible"] + 1},
        {"admissible_counts": whole["admissible_counts"][:-1]},
    ):
        np.savez(path, **whole | damage)
        with pytest.raises(DataError, match="expected the arrays of a trainer"):
            read_credit(path.with_name("iteration-0001.jsonl"))
    path.write_bytes(b"PK nonsense")
    with pytest.raises(DataError, match="Delete it to go without"):
        opened(run)
    np.savez(path, **whole)
    # The version that is needed to unpack the first array, as the directory at the end says it.
    data = bytearray(path.read_bytes())
    data[data.find(b"PK\x01\x02") + 6] = 99
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"expected the arrays of a trainer \(zip file version 9.9"):
        opened(run)
    # Files of before admissible actions were recorded.
    np.savez(path, **{name: column for name, column in whole.items() if not name.startswith(("actions", "admissible"))})
    assert "admissible" not in opened(run).steps(1, 0, 1)[0]
    path.unlink()
    assert opened(run).credit is None


def test_hostile_text_comes_through_unchanged(tmp_path):
    run = write_run(tmp_path / "run", {"iteration-0001": [played(HOSTILE, [(HOSTILE, HOSTILE)])]})
    file = opened(run)
    (step,) = file.steps(0, 0, 1)
    assert step["observation"] == HOSTILE and step["response"] == HOSTILE and "".join(step["pieces"]) == HOSTILE
    assert numbers(file, text="<SCRIPT>") == [0]
    # Half a surrogate pair, which JSON can hold and no file can.
    path = run / "episodes" / "iteration-0001.jsonl"
    record = json.loads(path.read_text())
    record["steps"][0]["response"] = "a\ud800b"
    path.write_text(json.dumps(record) + "\n")
    assert opened(run).steps(0, 0, 1)[0]["response"] == "a?b"


def test_a_run_without_a_tokenizer_shows_its_ids(tmp_path):
    run = write_run(tmp_path / "run", {"iteration-0001": EPISODES})
    (run / "tokenizer" / "tokenizer.json").unlink()
    (step,) = opened(run).steps(1, 1, 1)
    assert step["pieces"] == [f"[{token}]" for token in ids("sit")]
    assert step["response"] == "sit"


def test_a_very_long_episode_and_a_very_long_observation_are_shown_in_parts(tmp_path):
    many = 100_000
    line = EPISODES[0].to_json()
    record = json.loads(line)
    step = record["steps"][1]
    record["steps"] = [record["steps"][0], *[step] * (many - 1)]
    run = write_run(tmp_path / "run", {"iteration-0001": [played("big", [("x" * 1_000_000, "look")])]})
    with (run / "episodes" / "iteration-0001.jsonl").open("a") as file:
        file.write(json.dumps(record) + "\n")
    file = opened(run)
    (big,) = file.steps(0, 0, 1)
    assert len(big["observation"]) == SHOWN_CHARACTERS and big["observation_length"] == 1_000_000
    assert len(file.whole(0, 0)["observation"]) == 1_000_000
    started = time.process_time()
    steps = file.steps(1, many - 3, PAGE)
    assert [step["number"] for step in steps] == [many - 3, many - 2, many - 1]
    assert len(file.steps(1, 500, 10**6)) == PAGE
    curve = file.episode(1)["curve"]
    assert len(curve["step"]) == len(curve["reward"]) <= CURVE_POINTS
    assert file.whole(1, many - 1)["cut"]
    # Reading all of it takes seconds; a page must not.
    assert time.process_time() - started < 1.0


def test_values_that_no_curve_can_show_are_left_out(run):
    entries = [
        '{"iteration": 1, "a": 0.5, "b": NaN, "c": 1e999, "d": 1%s}' % ("0" * 400),
        '{"iteration": null, "a": 1}',
    ]
    (run / "metrics.jsonl").write_text("".join(f"{entry}\n" for entry in entries))
    assert open_runs([run])[0].curves() == {"a": [(1.0, 0.5)]}


def test_runs_are_told_apart_by_the_end_of_their_paths(tmp_path):
    folders = [write_run(tmp_path / a / "run", {"iteration-0001": EPISODES}, algorithm=a) for a in ("GRPO", "PPO")]
    runs = open_runs(folders)
    assert [run.name for run in runs] == ["GRPO/run", "PPO/run"]
    assert differing([run.settings() for run in runs]) == {"algorithm": ["GRPO", "PPO"]}
    assert runs[0].curves()["success"] == [(1.0, 0.05)] and "loss" not in runs[0].curves()
    with pytest.raises(DataError, match="named twice"):
        open_runs([folders[0], folders[0]])
    with pytest.raises(DataError, match=r"Expected the folder of a run or an evaluation, .*nowhere"):
        open_runs([tmp_path / "nowhere"])
    with pytest.raises(DataError, match="no file of episodes"):
        runs[0].episode_file("../config.json")


def test_folders_of_the_names_of_files_are_none(run):
    names = open_runs([run])[0].episode_files()
    for path in (run / "metrics.jsonl", run / "episodes" / "iteration-0002.jsonl", run / "episodes" / "truth.jsonl"):
        path.unlink(missing_ok=True)
        path.mkdir()
    (found,) = overview(open_runs([run]))["runs"]
    assert found["curves"] == {} and found["files"] == names
    assert opened(run).truth is None


def test_files_are_listed_in_the_order_of_the_run(run):
    for name in ("before-test-greedy", "iteration-0010", "iteration-0002"):
        (run / "episodes" / f"{name}.jsonl").touch()
    (found,) = open_runs([run])
    assert [name.removesuffix(".jsonl") for name in found.episode_files()] == [
        "before-test-greedy", "iteration-0001", "iteration-0002", "iteration-0010", "after-test-greedy",
    ]  # fmt: skip
