"""Files and folders that are made once."""

from __future__ import annotations

from pathlib import Path

import pytest

from steppo_gym.storage.cache import cache_dir, make_once


def never(path):
    raise AssertionError(f"{path} is there already.")


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_is_there_is_neither_made_nor_locked(tmp_path, kind):
    path = tmp_path / "made"
    path.mkdir() if kind == "folder" else path.write_text("whole")
    make_once(path, never)
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_lies_elsewhere_is_replaced_and_left_there(tmp_path):
    elsewhere, path = tmp_path / "large disk", tmp_path / "made"
    elsewhere.mkdir()
    path.symlink_to(elsewhere)
    for _ in range(2):
        make_once(path, Path.mkdir, again=True)
    assert elsewhere.is_dir() and path.is_dir() and not path.is_symlink()
    assert {each.name for each in tmp_path.iterdir()} <= {"large disk", "made", "made.lock"}


def test_a_home_folder_in_the_variable_is_the_users(monkeypatch):
    monkeypatch.setenv("STEPPO_GYM_CACHE", "~/somewhere")
    assert cache_dir("papers") == Path.home() / "somewhere" / "papers"
