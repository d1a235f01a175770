"""Does an environment keep the contract of `TextEnv`? For the tests of your own environments.

>>> check_text_env(functools.partial(gymnasium.make, "steppo/KeyDoor-v0"))

Left out is what cannot be seen from outside: that unequal states have unequal keys, and that an observation of the
rebuilt context says all there is to know. Nor is another process started: an order of Python's sets, which differs
between processes, goes unnoticed.
"""

from __future__ import annotations

from steppo_gym.testing.case import Case, MakeEnv
from steppo_gym.testing.contract import ContractError
from steppo_gym.testing.contract_rules import RULES

__all__ = ["ContractError", "MakeEnv", "check_text_env"]


def check_text_env(make_env: MakeEnv, *, episodes: int = 3, seed: int = 0, tag: str = "action") -> None:
    """Run an environment through every rule of the contract.

    Args:
        make_env: makes one environment, wrapped or not. It is called with no keyword or with some of `action_format`,
            `context` and `max_steps`, and once with a keyword that no environment has.
        episodes: how many tasks each rule is checked on.
        seed: seeds the choice of tasks and responses.
        tag: the tag that holds an admissible action. In the tool-call format it is the first required argument of the
            first of the environment's tools.

    Raises:
        ContractError: a rule is broken; the message says which one and what was found.
        ValueError: `episodes` is below 1.
        TypeError: `make_env` makes nothing, such as an id or an environment.
    """
    if not callable(make_env):
        made = f"functools.partial(gymnasium.make, {make_env!r})" if isinstance(make_env, str) else "your class"
        raise TypeError(f"make_env is what makes an environment when called, such as {made}, got {make_env!r:.80}.")
    if episodes < 1:
        raise ValueError(f"episodes must be at least 1, got {episodes}.")
    case = Case(make_env, episodes, seed, tag)
    for rule in RULES:
        try:
            rule(case)
        except ContractError:
            raise
        except Exception as error:
            text = f"Rule: no call fails that the contract allows ({rule.__name__})."
            raise ContractError(f"{text} Found: {type(error).__name__}: {error}") from error
