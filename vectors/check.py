"""Run the conformance vectors against a trainer's own credit and loss code.

    python vectors/check.py my_trainer.conformance:answer [--rules grpo,gspo] [--tolerance 1e-6]

Needs numpy and nothing else. `answer(rule, settings, episodes)` is a function of yours. It gets what a line of
vectors/credit holds (see docs/vectors.md and vectors/schema.json) and returns a dictionary with any of the quantities
of `expected`, in the same nesting: "advantages", "returns", "ratios", "loss", "gradients", "value_loss",
"value_gradients". It raises NotImplementedError for a rule it does not have.
"""

from __future__ import annotations

import argparse
import json
import pkgutil
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

FOLDER = Path(__file__).parent / "credit"
Answer = Callable[[str, dict[str, Any], list[dict[str, Any]]], dict[str, Any]]


def read_vectors(folder: Path = FOLDER, rules: Sequence[str] = ()) -> Iterator[dict[str, Any]]:
    """All vectors, file by file.

    Args:
        folder: of JSON files.
        rules: only these; all if empty.
    """
    for path in sorted(folder.glob("*.json")):
        for vector in json.loads(path.read_text(encoding="utf-8")):
            if not rules or vector["rule"] in rules:
                yield vector


def is_equal(wanted: Any, found: Any, tolerance: float = 1e-6) -> bool:
    """Whether nested lists have the same lengths and nearly the same numbers.

    Args:
        wanted: a number or lists of what is allowed here, as in a vector.
        found: the same; arrays count as lists.
        tolerance: absolute, and relative to the wanted number.
    """
    try:
        if isinstance(wanted, list):
            return all(is_equal(a, b, tolerance) for a, b in zip(wanted, found, strict=True))
        return bool(np.isclose(np.asarray(found, np.float64), wanted, rtol=tolerance, atol=tolerance))
    except (TypeError, ValueError):  # of another shape, or no numbers
        return False


def wrong_quantities(vector: dict[str, Any], found: dict[str, Any], tolerance: float = 1e-6) -> list[str]:
    """The quantities of an answer that are not what the vector expects.

    Raises:
        ValueError: the answer has no quantity that the vector knows, or one that it does not know.
    """
    unknown = sorted(found.keys() - vector["expected"].keys())
    if unknown or not found:
        known = ", ".join(vector["expected"])
        raise ValueError(f"{vector['name']}: expected some of {known}; got {', '.join(unknown) or 'nothing'}.")
    return [name for name, x in found.items() if not is_equal(vector["expected"][name], x, tolerance)]


def likely_fault(vector: dict[str, Any], found: dict[str, Any], tolerance: float = 1e-6) -> str | None:
    """The known fault whose wrong values an answer has, None if it has those of none."""
    for wrong in vector["faults"]:
        shared = [name for name in wrong if name in found]
        if shared and all(is_equal(wrong[name], found[name], tolerance) for name in shared):
            return wrong["fault"]
    return None


def main() -> int:
    """Read the command line; 0 if everything that was answered is right."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("answer", help="module:function that gives what your code makes of a vector")
    parser.add_argument("--rules", default="", help="names, with commas between them; all by default")
    parser.add_argument("--tolerance", type=float, default=1e-6, help="absolute and relative (default: 1e-6)")
    args = parser.parse_args()
    sys.path.insert(0, "")
    try:
        answer: Answer = pkgutil.resolve_name(args.answer if ":" in args.answer else "")
    except (ImportError, AttributeError, ValueError) as error:
        parser.error(f"expected module:function, such as my_trainer.conformance:answer, got {args.answer}: {error}.")
    passed, failed, skipped = 0, 0, set()
    rules, known = tuple(filter(None, args.rules.split(","))), {vector["rule"] for vector in read_vectors()}
    if unknown := set(rules) - known:
        parser.error(f"--rules: no vectors of {', '.join(sorted(unknown))}; there are {', '.join(sorted(known))}.")
    for vector in read_vectors(rules=rules):
        try:
            found = answer(vector["rule"], vector["settings"], vector["episodes"])
        except NotImplementedError:
            skipped.add(vector["rule"])
            continue
        wrong = wrong_quantities(vector, found, args.tolerance)
        passed, failed = passed + (not wrong), failed + bool(wrong)
        if wrong:
            fault = likely_fault(vector, found, args.tolerance)
            print(f"{vector['name']}: wrong {', '.join(wrong)}{f'; these are the values of {fault}' if fault else ''}")
    print(f"{passed} passed, {failed} failed; rules not answered: {', '.join(sorted(skipped)) or 'none'}")
    return 0 if passed and not failed else 1


if __name__ == "__main__":
    sys.exit(main())
