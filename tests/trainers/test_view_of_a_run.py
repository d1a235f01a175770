"""A run of twelve iterations, looked at in a browser: a failure is found, understood and linked."""

from __future__ import annotations

import shutil

import pytest
from headless_browser import chromium
from test_view_server import serving
from tokenizers import Tokenizer

from steppo_gym.rollouts.episode import read_episodes
from steppo_gym.trainers.rules import ALGORITHMS
from steppo_gym.trainers.run.launch import launch

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def run(policy_folder, tmp_path_factory):
    if shutil.which("chromedriver") is None:
        pytest.skip("no chromium and chromedriver here; on Debian: apt-get install chromium chromium-driver")
    folder = tmp_path_factory.mktemp("view") / "doors"
    flags = {
        "env": "key_door", "context": "append", "model_name_or_path": policy_folder, "output_dir": folder,
        "iterations": 12,
        "episodes_per_iteration": 8, "num_generations": 4, "updates_per_iteration": 1, "max_completion_length": 10,
        "learning_rate": 1e-4, "critic_learning_rate": 1e-3, "num_slots": 8, "num_env_workers": 0, "test_tasks": 2,
        "validation_tasks": 2, "evaluate_every": 6, "save_every": 0, "record_credit": 16, "report_to": "none",
    }  # fmt: skip
    launch(ALGORITHMS["steppo"], [f"--{name}={value}" for name, value in flags.items()])
    return folder


def last_with_both(run):
    """The last iteration with successes and failures, its episodes, and the numbers of those that failed."""
    for iteration in range(12, 0, -1):
        episodes = list(read_episodes(run / "episodes" / f"iteration-{iteration:04d}.jsonl"))
        failures = [number for number, episode in enumerate(episodes) if not episode.success]
        if 0 < len(failures) < len(episodes):
            return iteration, episodes, failures
    raise AssertionError("no iteration has both")


def test_a_run_is_opened_and_one_of_its_failures_understood(run, tmp_path):
    iteration, episodes, failures = last_with_both(run)
    with chromium(tmp_path) as browser, serving(run) as server:
        browser.open(f"{server.url}/")
        browser.wait_text("h2", "Episodes of doors")
        files = browser.texts("section:last-of-type tbody td:first-child")
        assert files[2:-2] == [f"iteration-{number:04d}" for number in range(1, 13)]
        browser.click(f"section:last-of-type a[href*='iteration-{iteration:04d}']")
        browser.wait_text("#count", f"{len(episodes)} episodes")
        browser.click(".filters a.button")
        browser.wait_text("#count", f"{len(failures)} of {len(episodes)} episodes")
        assert [int(row.get_attribute("data-number")) for row in browser.all("tr[data-number]")] == failures
        # The failure of a group in which another succeeded.
        number = next(
            (n for n in failures if any(e.success for e in episodes if e.task_id == episodes[n].task_id)), failures[0]
        )
        browser.click(f"tr[data-number='{number}'] a")
        browser.wait_text("h1", f"Episode {number}")
        responses = ["".join(browser.texts(f"#step-{n} .token")) for n in range(episodes[number].num_steps)]
        # All that was sampled, the tokens that the environment does not see included.
        tokenizer = Tokenizer.from_file(str(run / "tokenizer" / "tokenizer.json"))
        assert responses == [
            tokenizer.decode(step.response_ids, skip_special_tokens=False) for step in episodes[number].steps
        ]
        assert browser.all("#step-0 .token.plus, #step-0 .token.minus")
        assert browser.all(".along path.line")
        browser.click("#step-0 button.same")
        browser.wait(lambda: browser.all("#step-0 .mate, #step-0 .more .note"))
        browser.click("#step-0 h3 a")
        browser.wait(lambda: browser.all("#step-0.chosen"))
        assert browser.driver.current_url.endswith(f"#/run/doors/iteration-{iteration:04d}.jsonl/{number}/0?success=no")
        browser.screenshot(tmp_path / "failure.png")
        assert browser.complaints() == []
