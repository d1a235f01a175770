"""Every way an episode ends, as docs/endings.md says: what it is recorded as, and that leaving is no way out."""

from __future__ import annotations

import pickle
import re
from pathlib import Path

import pytest

from steppo_gym.errors import AllEpisodesFailedError, InfrastructureError
from steppo_gym.rollouts.codec import ByteCodec
from steppo_gym.rollouts.episode import ENDINGS, Episode
from steppo_gym.rollouts.policies import ScriptedPolicy
from steppo_gym.rollouts.pool import EnvFactory, EnvPool
from steppo_gym.rollouts.rollout import Assignment, collect, require_played

ENV_ID = "rollout_envs:steppo-test/Walk-v0"
CODEC = ByteCodec()
DOCUMENT = Path(__file__).parents[1] / "docs" / "endings.md"


@pytest.fixture(autouse=True)
def importable_env(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent))


def play(*task_ids, responses=("go",), num_workers=1, num_slots=1, max_prompt_tokens=None, **kwargs):
    factory = EnvFactory(ENV_ID, kwargs)
    assignments = [Assignment(task_id, seed=5) for task_id in task_ids]
    with EnvPool(factory, num_slots=num_slots, num_workers=num_workers, step_timeout=0.4) as pool:
        policy = ScriptedPolicy(responses, CODEC)
        return collect(policy, pool, CODEC, assignments, max_prompt_tokens=max_prompt_tokens).episodes


def test_the_state_an_episode_stopped_in_is_recorded():
    over, limit, long, raised = play("walk-2", "walk-9", "walk-8", "raise-1", num_workers=0, max_steps=5)
    assert (over.ended, over.final_state_key) == ("terminated", "walk-2 at 2")
    assert (limit.ended, limit.final_state_key) == ("truncated", "walk-9 at 5")
    assert (raised.ended, raised.final_state_key) == ("failed", None)
    first = len(long.steps[0].prompt_ids)
    (cut,) = play("walk-8", num_workers=0, context="append", max_prompt_tokens=first + 30)
    assert cut.ended == "truncated" and 0 < cut.num_steps < 5
    assert cut.final_state_key == f"walk-8 at {cut.num_steps}"


@pytest.mark.parametrize("context", ["rebuilt", "append"])
def test_a_step_over_the_time_limit_is_truncated_in_the_last_known_state(context):
    (late,) = play("hang-2", context=context)
    (whole,) = play("walk-9", context=context)
    assert (late.ended, late.failure, late.num_steps) == ("truncated", None, 3)
    assert [step.reward for step in late.steps] == [0.25, 0.25, 0.0]
    assert [step.invalid_action is None for step in late.steps] == [True, True, False]
    assert "did not finish a step within step_timeout=0.4 s" in late.steps[-1].invalid_action
    assert late.timed_out and not whole.timed_out
    # For the bootstrap: nothing is known of the state after the response, so it is the one before.
    assert late.final_prompt_ids == late.steps[-1].prompt_ids
    assert late.final_state_key == late.steps[-1].state_key == "hang-2 at 2"
    assert late.metrics["position"] == 2.0
    assert len(late.steps[-1].response_ids) == len(whole.steps[2].response_ids)
    assert Episode.from_json(late.to_json()) == late


def test_leaving_is_worth_what_staying_without_doing_anything_is_worth():
    # Two good steps, then a hanging one; or invalid responses to the end.
    (late,) = play("hang-2", penalty=-0.1, max_steps=12)
    (idle,) = play("walk-9", responses=["go", "go", *["nonsense"] * 10], penalty=-0.1, max_steps=12)
    assert idle.ended == "truncated" and idle.num_steps == 12
    assert late.total_reward == pytest.approx(idle.total_reward)
    assert late.steps[-1].reward == pytest.approx(-1.0)
    # In the last step too, where nothing is left but this one.
    (last,) = play("hang-2", penalty=-0.1, max_steps=3)
    assert last.steps[-1].reward == pytest.approx(-0.1)


def test_a_start_over_the_time_limit_is_nobodys_response():
    with EnvPool(EnvFactory(ENV_ID), num_slots=1, num_workers=1, reset_timeout=3.0) as pool:
        assignments = [Assignment("hangstart-0", 0), Assignment("walk-1", 0)]
        late, other = collect(ScriptedPolicy(["go"], CODEC), pool, CODEC, assignments).episodes
    assert (late.ended, late.failure.boundary, late.num_steps) == ("failed", "worker", 0)
    assert other.ended == "terminated"


def test_nothing_played_is_an_error_that_names_the_first_cause():
    episodes = play("raise-1", "search-0", num_workers=0)
    with pytest.raises(AllEpisodesFailedError) as caught:
        require_played(episodes)
    found = "All 2 episodes failed, the first at the boundary 'environment' with: RuntimeError: the walker fell (in "
    assert str(caught.value).startswith(found)
    assert isinstance(caught.value, InfrastructureError) and caught.value.boundary == "environment"
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.number) == (str(caught.value), 2)
    require_played(())
    require_played(play("raise-1", "walk-1", num_workers=0))


def rows_of_the_table():
    lines = [line for line in DOCUMENT.read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]
    return lines[0], cells


def test_the_document_lists_every_ending_and_boundary():
    head, rows = rows_of_the_table()
    assert all(word in head for word in ("cause", "ended", "who", "reward", "trained", "evaluation"))
    named = {re.findall(r"`(\w+)`", row[1])[0] for row in rows}
    assert named == set(ENDINGS)
    boundaries = {name for row in rows for name in re.findall(r"boundary `(\w+)`", row[0])}
    sources = [*Path(DOCUMENT.parents[1], "steppo_gym").rglob("*.py"), *Path(DOCUMENT.parents[1], "envs").rglob("*.py")]
    code = "\n".join(path.read_text(encoding="utf-8") for path in sources)
    raised = set(re.findall(r'(?:Failure|InfrastructureError)\(\s*"(\w+)"', code))
    assert raised <= boundaries, "a failure at a boundary that the table does not have"


def test_the_document_trains_on_what_did_not_fail_and_counts_everything():
    _, rows = rows_of_the_table()
    by_ending = {ending: {r[4].split()[0] for r in rows if f"`{ending}`" in r[1]} for ending in ENDINGS}
    by_ending = {ending: {trained.rstrip(",") for trained in found} for ending, found in by_ending.items()}
    assert by_ending == {"terminated": {"yes"}, "truncated": {"yes"}, "failed": {"no"}}
    assert {r[5].split()[0].rstrip(",") for r in rows} == {"yes"}
