"""Where downloads and derived files are kept on disk."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs


def cache_dir(*parts: str) -> Path:
    """The folder `parts` below the cache root; not created.

    The root is `$STEPPO_GYM_CACHE` when set, else the user's cache folder of the platform.
    """
    root = os.environ.get("STEPPO_GYM_CACHE") or platformdirs.user_cache_dir("steppo-gym", appauthor=False)
    return Path(root, *parts)
