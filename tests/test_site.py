"""The documentation site builds without a warning, and has a page for everything that it should."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from steppo_gym import registered_ids


@pytest.fixture(scope="module")
def site(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=repository, capture_output=True, text=True, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr + done.stdout
    return folder


def text(page: Path) -> str:
    return re.sub(r"<[^>]+>", "", page.read_text(encoding="utf-8"))


def test_every_environment_and_algorithm_has_a_page(site: Path, repository: Path):
    cards = {path.parent.name for path in repository.glob("envs/*/README.md")}
    assert {path.stem for path in site.glob("environments/*.html")} == cards
    shown = " ".join(text(path) for path in site.glob("environments/*.html"))
    assert all(env_id in shown for env_id in registered_ids())
    assert {path.stem for path in site.glob("results/*.html")} == {"benchmark", "results", "audits", "study", "speed"}
    assert not list(site.rglob("*.pyc"))
    scripts = {
        path.stem
        for path in repository.glob("trainers/*.py")
        if "Train a policy with" in path.read_text(encoding="utf-8")
    }
    assert {path.stem for path in site.glob("algorithms/*.html")} == scripts
    shown = text(site / "algorithms" / "steppo.html")
    assert "gae_lambda" in shown and "Lambda of generalized advantage estimation." in shown


def test_the_api_is_read_from_the_docstrings(site: Path):
    assert "An episode fails, and the others go on" in text(site / "api" / "steppo_gym.rollouts.html")
    assert "StepTrainer" in text(site / "api" / "steppo_gym.trainers.html")


def test_pages_load_nothing_from_elsewhere(site: Path):
    for page in site.rglob("*.html"):
        loaded = re.findall(r"<(?:script|img|iframe)[^>]* src=\"?([^\" >]+)", page.read_text(encoding="utf-8"))
        loaded += re.findall(r"<link[^>]* rel=\"?stylesheet\"?[^>]*>", page.read_text(encoding="utf-8"))
        assert not [source for source in loaded if "//" in source], page


def test_links_into_the_repository_lead_to_what_is_there(site: Path, repository: Path):
    linked = set()
    for page in site.rglob("*.html"):
        linked |= set(
            re.findall(
                r"https://github\.com/steppo-gym/steppo-gym/blob/main/([^\"#]+)", page.read_text(encoding="utf-8")
            )
        )
    assert "LICENSE" in linked or "CITATION.cff" in linked
    assert not [path for path in linked if not (repository / path).exists()]
