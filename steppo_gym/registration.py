"""The ids that importing `steppo_gym` adds to Gymnasium's registry.

Entry points are strings, so that an environment's own dependencies load only when it is made. They are registered
without `max_episode_steps`, for which Gymnasium would set a limit around the environment's: it knows nothing of
`max_steps`, and it truncates an episode that terminates at its last step. See `TextEnv.spec`.
"""

from __future__ import annotations

import os
import sys

import gymnasium

from steppo_gym.command_line import did_you_mean

_ENTRY_POINTS = {
    "steppo/KeyDoor-v0": "steppo_gym.envs.key_door.env:KeyDoorEnv",
    "steppo/ALFWorld-v0": "steppo_gym.envs.alfworld.env:AlfworldEnv",
    "steppo/HotpotQA-v0": "steppo_gym.envs.multihop_qa.env:HotpotQAEnv",
    "steppo/2WikiMultihopQA-v0": "steppo_gym.envs.multihop_qa.env:TwoWikiMultihopQAEnv",
    "steppo/MuSiQue-v0": "steppo_gym.envs.multihop_qa.env:MuSiQueEnv",
    "steppo/PaperSearch-v0": "steppo_gym.envs.paper_search.env:PaperSearchEnv",
    "steppo/WebShop-v0": "steppo_gym.envs.webshop.env:WebShopEnv",
}


def register_envs() -> None:
    """Register all environments of this package; a second call changes nothing."""
    for env_id, entry_point in _ENTRY_POINTS.items():
        if env_id not in gymnasium.registry:
            gymnasium.register(env_id, entry_point=entry_point)


def find_modules_here(env_id: str) -> None:
    """Let the module of "module:id" be found in the working directory as well, wherever the running script lies.

    Other ids import nothing, and then the working directory stays out of it: a folder there could pass for a package.
    """
    if ":" in env_id and os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())


def env_id_of(name: str) -> str:
    """The id that a name on a command line stands for.

    Args:
        name: an id, "module:id", or the beginning of an id of this package without case, "_" and "-v0": "key_door".

    Raises:
        ValueError: it is none of them.
    """
    if name in gymnasium.registry or ":" in name:
        return name
    plain = name.lower().replace("_", "")
    found = [env_id for env_id in _ENTRY_POINTS if env_id.lower().removeprefix("steppo/").startswith(plain)]
    if len(found) != 1 or not plain:
        short = [env_id.lower().removeprefix("steppo/").removesuffix("-v0") for env_id in _ENTRY_POINTS]
        meant = did_you_mean(name, _ENTRY_POINTS if "/" in name else short) or "."
        known = ", ".join(_ENTRY_POINTS)
        raise ValueError(f"The environment must be one of {known}, or module:id, got {name!r}{meant}")
    return found[0]


def registered_ids() -> tuple[str, ...]:
    """The ids of this package's environments."""
    return tuple(_ENTRY_POINTS)
