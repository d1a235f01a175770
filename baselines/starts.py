"""Make the starting policies of a comparison that are not there yet: the shipped one reads again, then errs anew.

    python baselines/starts.py head_to_head_hotpotqa

Each goes into a folder of its own in `baselines/starts/`, with a card that says by which command it was made, its hash
and how it does on validation tasks. The same command goes on with what was interrupted.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from steppo_gym.baselines.compared.protocol import Protocol
from steppo_gym.baselines.jobs import REPOSITORY, held
from steppo_gym.baselines.protocols import PROTOCOLS

UPDATES = 400
"""Of reading again. The rates rise as high as in the first making and fall to zero, so that the policy moves."""


def commands(protocol: Protocol) -> list[list[str]]:
    """Of all starts that have no card yet, to be run in the repository's folder: number N is made with seed N."""
    first, *others = protocol.starts
    return [
        [
            *(sys.executable, "-m", "steppo_gym.trainers.make_start", "--env", protocol.env, "--seed", str(seed)),
            *("--from", first, "--updates", str(UPDATES), "--out", folder),
        ]
        for seed, folder in enumerate(others, 1)
        if not (REPOSITORY / folder / "card.json").exists()
    ]


def main(argv: Sequence[str] | None = None) -> None:
    """Make what is missing; exits with 1 if a making failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    having = [name for name, protocol in PROTOCOLS.items() if protocol.starts]
    parser.add_argument("protocol", choices=having)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, metavar="N", help="at a time [%(default)s]")
    options = parser.parse_args(argv)
    if options.jobs < 1:
        parser.error(f"--jobs must be at least 1, got {options.jobs}.")
    protocol = PROTOCOLS[options.protocol]
    wanted = commands(protocol)
    print(f"{protocol.name}: {len(protocol.starts) - len(wanted)} of {len(protocol.starts)} starts are there")
    environment = os.environ | held(protocol.instructions)

    def make(command: list[str]) -> int:
        log = REPOSITORY / f"{command[-1]}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as file:
            done = subprocess.run(command, cwd=REPOSITORY, env=environment, stdout=file, stderr=file, check=False)
        print(f"{command[-1]}: {'failed' if done.returncode else 'made'}, see {log}", flush=True)
        return done.returncode

    with ThreadPoolExecutor(options.jobs) as pool:
        if any(pool.map(make, wanted)):
            sys.exit("Some failed; the same command tries them again.")


if __name__ == "__main__":
    main()
