"""Where official data files are, as a table: no code, no imports of environments."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Archive:
    """One file to fetch; a zip file is unpacked."""

    url: str
    sha256: str | None = None
    """Hex digest of the file. None if unknown: then the first download records it and later ones must match."""
    mirrors: tuple[str, ...] = ()
    """Other addresses of the same file, tried in this order where the first one fails."""

    def __post_init__(self) -> None:
        try:
            name = self.file_name
        except ValueError as error:
            raise ValueError(f"Expected a URL, got {self.url!r} ({error}).") from None
        if name in ("", "..") or "\0" in name:
            raise ValueError(f"Expected a URL that ends in a file name, got {self.url!r}.")

    @property
    def file_name(self) -> str:
        """Last part of the URL's path."""
        return PurePosixPath(urlsplit(self.url).path).name


@dataclass(frozen=True)
class DataSet:
    """The files of one environment, all in one folder."""

    archives: tuple[Archive, ...]
    folder_variable: str
    """Environment variable that names the folder."""
    default_folder: str
    """Used when the variable is not set; `~` is expanded."""
    origin: str = ""
    """Where its authors say how to get the files; named when no address works any more."""


_ALFWORLD_RELEASES = "https://github.com/alfworld/alfworld/releases/download"
_HOTPOTQA = "http://curtis.ml.cmu.edu/datasets/hotpot"
_MUSIQUE = "https://huggingface.co/datasets/dgslibisey/MuSiQue/resolve/main"
_WEBSHOP = "https://huggingface.co/datasets/YWZBrandon/webshop-data/resolve/ce990fff5aee388db2706f07820c578ab68e0453"
_WEBSHOP_MIRROR = (
    "https://huggingface.co/datasets/HongbangYuan/webshop/resolve/0129d4a81dbdb827e76afd20a1e2c38b61098613"
)
_WEBSHOP_ORIGIN = "https://github.com/princeton-nlp/WebShop (setup.sh names the authors' own addresses)"


def _webshop(name: str, sha256: str) -> Archive:
    return Archive(f"{_WEBSHOP}/{name}", sha256, (f"{_WEBSHOP_MIRROR}/{name}",))


_WEBSHOP_HUMAN = _webshop("items_human_ins.json", "cf78667548a71786e1d9049c24b802e48e1084ad4bb021cae56ce1f6d96954a3")

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
    ),
    # The URLs of <https://hotpotqa.github.io>; the digests are published by many who fetched the files. The test set
    # has no answers.
    "hotpotqa": DataSet(
        archives=(
            Archive(
                f"{_HOTPOTQA}/hotpot_train_v1.1.json",
                "26650cf50234ef5fb2e664ed70bbecdfd87815e6bffc257e068efea5cf7cd316",
            ),
            Archive(
                f"{_HOTPOTQA}/hotpot_dev_distractor_v1.json",
                "4e9ecb5c8d3b719f624d66b60f8d56bf227f03914f5f0753d6fa1b359d7104ea",
            ),
        ),
        folder_variable="HOTPOTQA_DATA",
        default_folder="~/.cache/hotpotqa",
    ),
    # The release with ids, named by <https://github.com/Alab-NII/2wikimultihop>; it has the aliases as well.
    "2wikimultihopqa": DataSet(
        archives=(Archive("https://www.dropbox.com/s/ms2m13252h6xubs/data_ids_april7.zip?dl=1"),),
        folder_variable="TWOWIKIMULTIHOPQA_DATA",
        default_folder="~/.cache/2wikimultihopqa",
    ),
    # The official archive lies on Google Drive, which gives no stable address; this copy has its files unchanged. Two
    # people who compared copies agree on the digest of the development set.
    "musique": DataSet(
        archives=(
            Archive(f"{_MUSIQUE}/musique_ans_v1.0_train.jsonl"),
            Archive(
                f"{_MUSIQUE}/musique_ans_v1.0_dev.jsonl",
                "15fa63794d18a94ce12411aca6e2327e65b6e83b0b1490efab3f1962e48abf3b",
            ),
        ),
        folder_variable="MUSIQUE_DATA",
        default_folder="~/.cache/musique",
    ),
    # The authors' copies lie on Google Drive, which asks for a cookie; these two have the files unchanged. The digests
    # are published by several who fetched them, here and there. The first thousand products, as most papers use them.
    "webshop": DataSet(
        archives=(
            _webshop("items_shuffle_1000.json", "30a4765c3a327af72d9a9a95a6b2486d516f0fa1d3ecd83681901ce82a21b269"),
            _webshop("items_ins_v2_1000.json", "f88a36314a397b53b3d9c3fa5878e5f7b26d35019a51ec83fbedeca61a948f6f"),
            _WEBSHOP_HUMAN,
        ),
        folder_variable="WEBSHOP_DATA",
        default_folder="~/.cache/webshop",
        origin=_WEBSHOP_ORIGIN,
    ),
    # All 1.18 million products, 5.5 GB.
    "webshop-full": DataSet(
        archives=(
            _webshop("items_shuffle.json", "2ef591d65df3af89e972ab72468eb82cbf124d876552d9f3678667edd620a6c8"),
            _webshop("items_ins_v2.json", "1d36af476bdb8f82a5da62bd8acdabe54cd8de2fa84010d37da5c4890feb447e"),
            _WEBSHOP_HUMAN,
        ),
        folder_variable="WEBSHOP_FULL_DATA",
        default_folder="~/.cache/webshop-full",
        origin=_WEBSHOP_ORIGIN,
    ),
}
"""Data sets by the name `steppo-gym download` takes."""
