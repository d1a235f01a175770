"""What all tests share. Nothing here imports torch, so that tests of the core stay fast."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import hypothesis
import pytest

# The same examples in every run, and nothing about time: a busy machine is no failure.
hypothesis.settings.register_profile(
    "repeatable", deadline=None, derandomize=True, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("repeatable")

REPOSITORY = Path(__file__).parents[1]


def pytest_collection_finish():
    # Training collects garbage again and again, and would look through all modules that are loaded each time.
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of this run of the tests, which the processes of pytest-xdist share."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture(scope="session", autouse=True)
def isolated_cache(shared_folder: Path):
    """Keep caches of this run, subprocesses included, out of the user's own, and the network out of the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STEPPO_GYM_CACHE", str(shared_folder / "steppo_gym_cache"))
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.delenv("ALFWORLD_DATA", raising=False)
        # Read when torch starts: with more threads than cores the small models of the tests only get slower.
        patch.setenv("OMP_NUM_THREADS", "1")
        yield


@pytest.fixture(scope="session")
def repository() -> Path:
    return REPOSITORY


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder with real data files, not part of the repository."""
    folder = Path(os.environ.get("STEPPO_GYM_SHARED_DATA") or REPOSITORY.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"no data in {folder}; set STEPPO_GYM_SHARED_DATA")
    return folder
