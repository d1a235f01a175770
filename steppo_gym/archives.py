"""Where official data files are, as a table: no code, no imports of environments."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Archive:
    """One zip file to fetch and unpack."""

    url: str
    sha256: str | None = None
    """Hex digest of the file. None if unknown: then the first download records it and later ones must match."""

    def __post_init__(self) -> None:
        if self.file_name in ("", ".."):
            raise ValueError(f"Expected a URL that ends in a file name, got {self.url!r}.")

    @property
    def file_name(self) -> str:
        """Last part of the URL's path."""
        return PurePosixPath(urlsplit(self.url).path).name


@dataclass(frozen=True)
class DataSet:
    """The archives of one environment, all unpacked into one folder."""

    archives: tuple[Archive, ...]
    folder_variable: str
    """Environment variable that names the folder."""
    default_folder: str
    """Used when the variable is not set; `~` is expanded."""


_ALFWORLD_RELEASES = "https://github.com/alfworld/alfworld/releases/download"

DATA_SETS = {
    # The URLs are those of `alfworld-download` of alfworld 0.4.2, without what only its other modes need. Both files
    # unpack below `json_2.1.1/`. The digests are published by people who fetched the files: several agree on the first,
    # one record gives the second.
    "alfworld": DataSet(
        archives=(
            Archive(
                f"{_ALFWORLD_RELEASES}/0.2.2/json_2.1.1_json.zip",
                "25171f16e20ad7b048c47275c45b0babf3aa1cbab29cec97387922350a9844bc",
            ),
            Archive(
                f"{_ALFWORLD_RELEASES}/0.4.0/json_2.1.2_tw-pddl.zip",
                "eea90499df27b9cb3147d1d1927264146d38194b575e25f70a82875545742dcb",
            ),
        ),
        folder_variable="ALFWORLD_DATA",
        default_folder="~/.cache/alfworld",
    )
}
"""Data sets by the name `steppo-gym download` takes."""
