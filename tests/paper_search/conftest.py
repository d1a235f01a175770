"""The environment on a few papers of its own."""

from __future__ import annotations

import json

import gymnasium
import pytest
from paper_episodes import ID, PAPERS, QUERIES

import steppo_gym  # noqa: F401 - registers the environments


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("papers")
    for name, rows in {"papers": PAPERS, "queries": QUERIES}.items():
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")
    return {"papers": folder / "papers.jsonl", "data": folder / "queries.jsonl"}


@pytest.fixture
def make(files):
    made = []

    def make_env(**kwargs):
        made.append(gymnasium.make(ID, **{**files, **kwargs}).unwrapped)
        return made[-1]

    yield make_env
    for env in made:
        env.close()
