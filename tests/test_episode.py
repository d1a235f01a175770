import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steppo_gym import DataError, Episode, Failure, Step, read_episodes, write_episodes

# All of Python's strings: responses may hold what no file can, such as lone surrogates.
ANY_TEXT = st.text(st.characters())
IDS = st.lists(st.integers(0, 300), max_size=6).map(tuple)
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)


@st.composite
def steps(draw, previous):
    """A step whose prompt goes on from the one before, or is new, or nearly goes on."""
    added = draw(IDS)
    prompt_ids = draw(st.sampled_from([previous + added, added, previous[:-1] + added, previous]))
    response_ids = draw(IDS)
    log_probs = tuple(draw(st.lists(NUMBERS, min_size=len(response_ids), max_size=len(response_ids))))
    return Step(
        prompt_ids=prompt_ids,
        response_ids=response_ids,
        log_probs=draw(st.sampled_from([None, log_probs])),
        response=draw(ANY_TEXT),
        reward=draw(NUMBERS),
        state_key=draw(ANY_TEXT),
        invalid_action=draw(st.none() | ANY_TEXT),
        generation_seconds=draw(NUMBERS),
        environment_seconds=draw(NUMBERS),
    )


@st.composite
def episodes(draw):
    made, previous = [], ()
    for _ in range(draw(st.integers(0, 4))):
        made.append(draw(steps(previous)))
        previous = made[-1].prompt_ids + made[-1].response_ids
    ended = draw(st.sampled_from(["terminated", "truncated", "failed"]))
    final = draw(st.sampled_from([previous, (*previous, 7), (7, *previous)]))
    return Episode(
        task_id=draw(ANY_TEXT),
        steps=tuple(made),
        ended=ended,
        final_prompt_ids=final if ended == "truncated" else None,
        success=draw(st.booleans()),
        metrics=draw(st.dictionaries(ANY_TEXT, NUMBERS, max_size=2)),
        failure=Failure(draw(ANY_TEXT), draw(ANY_TEXT)) if ended == "failed" else None,
        seed=draw(st.none() | st.integers(0, 2**63)),
        group=draw(st.integers(0, 9)),
    )


@given(episodes())
def test_json_round_trip(episode):
    line = episode.to_json()
    assert line.isascii()
    assert len(line.splitlines()) == 1
    assert Episode.from_json(line) == episode
    assert Episode.from_json(line).to_json() == line


@given(st.lists(episodes(), max_size=3))
def test_file_round_trip(tmp_path_factory, made):
    path = tmp_path_factory.mktemp("episodes") / "new folder" / "episodes.jsonl"
    write_episodes(path, made[:1])
    write_episodes(path, made[1:], append=True)
    assert list(read_episodes(path)) == made
    write_episodes(path, made[1:])
    assert list(read_episodes(path)) == made[1:]


def step(**changes):
    fields = {
        "prompt_ids": (1,),
        "response_ids": (2,),
        "log_probs": None,
        "response": "a",
        "reward": 0.0,
        "state_key": "s",
    }
    return Step(**(fields | changes))


def test_a_growing_prompt_is_stored_once():
    """Twice as many steps of an appended conversation make the line twice as long, not four times."""

    def size(num_steps):
        made, prompt = [], ()
        for number in range(num_steps):
            prompt += (1000 + number,) * 50
            made.append(step(prompt_ids=prompt))
            prompt += (2,)
        return len(Episode("task", tuple(made), "truncated", final_prompt_ids=prompt).to_json())

    assert size(40) / size(20) == pytest.approx(2, rel=0.02)


def test_numbers_of_steps_and_reward():
    episode = Episode("task", (step(reward=0.1),) * 10, "terminated")
    assert episode.num_steps == 10
    assert episode.total_reward == 1.0  # a plain sum gives 0.9999999999999999
    assert Episode("task", (), "terminated").total_reward == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"log_probs": (0.0, 0.0)}, "one entry per response token, got 2 for 1"),
        ({"reward": math.nan}, "reward must be finite, got nan"),
        ({"reward": math.inf}, "reward must be finite, got inf"),
    ],
)
def test_steps_are_checked(changes, message):
    with pytest.raises(ValueError, match=message):
        step(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ended": "done"}, "ended must be one of terminated, truncated, failed, got 'done'"),
        ({"ended": "failed"}, "failure must be given exactly for failed"),
        ({"ended": "terminated", "failure": Failure("worker", "gone")}, "failure must be given exactly for failed"),
        ({"ended": "truncated"}, "final_prompt_ids must be given exactly for truncated"),
        ({"ended": "terminated", "final_prompt_ids": (1,)}, "final_prompt_ids must be given exactly for truncated"),
    ],
)
def test_episodes_are_checked(changes, message):
    with pytest.raises(ValueError, match=message):
        Episode("task", (), **changes)


def damaged_lines():
    record = json.loads(Episode("task", (step(),), "terminated").to_json())
    yield "not JSON", "{"
    yield "no object", "[]"
    yield "nothing", ""
    yield "deep", "[" * 100_000
    yield "no steps", json.dumps({key: value for key, value in record.items() if key != "steps"})
    yield "unknown field", json.dumps(record | {"colour": "red"})
    yield "missing field", json.dumps({key: value for key, value in record.items() if key != "task_id"})
    yield "a step without response", json.dumps(record | {"steps": [{"prompt_ids": [1]}]})
    yield "no reward", json.dumps(record | {"steps": [record["steps"][0] | {"reward": None}]})
    yield "not finite", json.dumps(record | {"steps": [record["steps"][0] | {"reward": math.nan}]})
    yield "unknown end", json.dumps(record | {"ended": "done"})


@pytest.mark.parametrize("label", dict(damaged_lines()))
def test_damaged_lines_are_named(tmp_path, label):
    line = dict(damaged_lines())[label]
    with pytest.raises(DataError, match="Expected one episode as JSON, got"):
        Episode.from_json(line)
    path = tmp_path / "episodes.jsonl"
    path.write_text(Episode("task", (), "terminated").to_json() + "\n" + line + "\n")
    with pytest.raises(DataError, match=r"episodes\.jsonl, line 2: Expected one episode"):
        list(read_episodes(path))


def test_bytes_that_are_no_text_are_named(tmp_path):
    path = tmp_path / "episodes.jsonl"
    path.write_bytes(b"\xff\n")
    with pytest.raises(DataError, match=r"episodes\.jsonl, line 1: .*utf-8"):
        list(read_episodes(path))
