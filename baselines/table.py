"""Make tables and figures from the recorded lines alone.

python baselines/table.py                    # print the tables of all protocols; nothing is written
python baselines/table.py alfworld key_door  # of some
python baselines/table.py --write            # the blocks of both READMEs and docs/starts.md, RESULTS.md, figures/
python baselines/table.py alfworld --figures /tmp/figures
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from steppo_gym.baselines.compared.default_jobs import (
    ALFWORLD_FULL,
    HOTPOTQA,
    MAIN_JOB,
    MUSIQUE,
    PAPER_SEARCH,
    TWO_WIKI,
    WEBSHOP,
)
from steppo_gym.baselines.compared.head_to_head import (
    HEAD_TO_HEAD_ALFWORLD,
    HEAD_TO_HEAD_HOTPOTQA,
    HEAD_TO_HEAD_KEY_DOOR,
    HEAD_TO_HEAD_PAPER_SEARCH,
    HEAD_TO_HEAD_WEBSHOP,
)
from steppo_gym.baselines.compared.protocol import Protocol
from steppo_gym.baselines.jobs import REPOSITORY
from steppo_gym.baselines.protocols import PROTOCOLS
from steppo_gym.baselines.records import RESULTS, MixedProtocolsError, read_results
from steppo_gym.baselines.tables.figures import draw_curves
from steppo_gym.baselines.tables.listing import listing
from steppo_gym.baselines.tables.short_block import README_MARKERS, short_block
from steppo_gym.baselines.tables.starts_block import INVALID_MARKERS, STARTS_MARKERS, invalid_block, starts_block
from steppo_gym.baselines.tables.summary import summary
from steppo_gym.baselines.tables.text_table import write_between

IN_THE_README = (
    HEAD_TO_HEAD_KEY_DOOR,
    HEAD_TO_HEAD_ALFWORLD,
    HEAD_TO_HEAD_HOTPOTQA,
    HEAD_TO_HEAD_PAPER_SEARCH,
    HEAD_TO_HEAD_WEBSHOP,
)
FROM_SHIPPED_STARTS = {
    "alfworld-easy": MAIN_JOB,
    "alfworld-full": ALFWORLD_FULL,
    "hotpotqa": HOTPOTQA,
    "2wiki": TWO_WIKI,
    "musique": MUSIQUE,
    "paper_search": PAPER_SEARCH,
    "webshop": WEBSHOP,
}
"""By the name of the start."""


def main(argv: Sequence[str] | None = None) -> None:
    """Print tables, or write what the arguments say; exits with a message if lines of protocols are mixed."""
    args = _parser().parse_args(argv)
    unknown = sorted(set(args.protocols) - set(PROTOCOLS))
    if unknown:
        sys.exit(f"No protocol named {', '.join(unknown)}. There are {', '.join(PROTOCOLS)}.")
    if args.write and args.protocols:
        sys.exit("--write renews every table of the repository: name no protocols, or leave --write out.")
    chosen = [PROTOCOLS[name] for name in args.protocols] or list(PROTOCOLS.values())
    try:
        if args.write:
            write(REPOSITORY, args.results)
        else:
            print(summary(args.results, chosen), end="")
        if args.figures is not None:
            write_figures(args.figures, args.results, chosen)
    except MixedProtocolsError as error:
        sys.exit(str(error))


def write(repository: Path, results: Path) -> None:
    """Write the blocks of both READMEs and of docs/starts.md, RESULTS.md and the figures of a checkout.

    Raises:
        MixedProtocolsError: lines do not belong together.
    """
    folder = repository / "baselines"
    protocols = PROTOCOLS.values()
    write_between(repository / "README.md", README_MARKERS, short_block(results, IN_THE_README))
    starts = starts_block(results, repository / "trainers" / "starts", FROM_SHIPPED_STARTS)
    write_between(repository / "docs" / "starts.md", STARTS_MARKERS, starts)
    write_between(folder / "README.md", INVALID_MARKERS, invalid_block(results, FROM_SHIPPED_STARTS.values()))
    (folder / "RESULTS.md").write_text(listing(results, protocols), encoding="utf-8")
    write_figures(folder / "figures", results, protocols)


def write_figures(folder: Path, results: Path, protocols: Iterable[Protocol]) -> None:
    """Draw the learning curves of all protocols that have some, but for superseded ones."""
    for protocol in protocols:
        lines = read_results(results, protocol, "matrix")
        if not protocol.superseded and any(line["curve"] for line in lines):
            draw_curves(protocol, lines, folder / f"{protocol.name}.svg")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Tables and figures from recorded lines; prints unless told to write.")
    parser.add_argument("protocols", nargs="*", metavar="PROTOCOL", help=f"of {', '.join(PROTOCOLS)}; all by default")
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="FOLDER", help="where the lines are")
    parser.add_argument("--figures", type=Path, metavar="FOLDER", help="draw learning curves into this folder")
    parser.add_argument(
        "--write",
        action="store_true",
        help="write the blocks of both READMEs and docs/starts.md, RESULTS.md and figures/",
    )
    return parser


if __name__ == "__main__":
    main()
