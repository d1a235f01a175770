"""The first page of the viewer: runs, evaluations and audits, each compared with its own kind."""

from __future__ import annotations

import json

from view_runs import played, write_evaluation, write_run

from steppo_gym.view.export import export
from steppo_gym.view.overview import overview
from steppo_gym.view.run_folder import open_runs

EPISODES = [played(f"task-{n}", [("A lamp.", "take")], success=n == 0, group=n) for n in range(4)]


def test_evaluations_have_their_success_and_are_compared_with_each_other(tmp_path):
    run = write_run(tmp_path / "run", {"iteration-0001": EPISODES})
    before = write_evaluation(tmp_path / "before", EPISODES, model="small")
    after = write_evaluation(tmp_path / "after", EPISODES, model="run/final")
    seen = overview(open_runs([run, before, after]))
    assert seen["differing"] == {"evaluation.policy.model": [None, "small", "run/final"]}
    assert [one["evaluation"] and one["evaluation"]["success"]["mean"] for one in seen["runs"]] == [None, 0.25, 0.25]
    # Under way: no summary yet.
    (after / "summary.json").unlink()
    assert overview(open_runs([after]))["runs"][0]["evaluation"] == {}


def test_what_one_folder_does_not_need_of_its_share_goes_to_the_others(tmp_path):
    short = write_evaluation(tmp_path / "short", EPISODES[:1], model="small")
    long = write_run(tmp_path / "long", {"iteration-0001": EPISODES * 3})
    for folders in ([short, long], [long, short]):
        page, included, total = export(open_runs(folders), most_episodes=9)
        assert (included, total) == (9, 13)
        assert json.dumps("9 of 13 episodes are in this page.") in page
