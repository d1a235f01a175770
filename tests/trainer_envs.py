"""KeyDoor with tasks that break, importable by worker processes."""

from __future__ import annotations

import gymnasium

from steppo_gym.envs.key_door.env import KeyDoorEnv


class BreakingKeyDoorEnv(KeyDoorEnv):
    """Raises at the second response of the tasks in `broken`."""

    def __init__(self, *, broken=(), **kwargs):
        super().__init__(**kwargs)
        self.broken = frozenset(broken)
        self.num_responses = 0

    def _start(self, task_id):
        self.num_responses = 0
        return super()._start(task_id)

    def _apply(self, response):
        self.num_responses += 1
        if self.task_id in self.broken and self.num_responses == 2:
            raise RuntimeError("the door fell off")
        return super()._apply(response)


class Odd(KeyDoorEnv):
    """Has splits that are not there, in one way or another."""

    def __init__(self, split="train", context="append", action_format="tag", odd="none", **kwargs):
        if odd == "no test" and split == "test":
            raise KeyError(split)
        self.split = split
        split = "train" if odd in ("one split", "numbered") else split
        super().__init__(split=split, context=context, action_format=action_format, **kwargs)
        if odd == "empty" and split == "validation":
            self.task_ids = ()
        if odd == "few":
            self.task_ids = self.task_ids[:3]
        self.odd = odd

    def task_content(self, task_id):
        return f"{self.split} {task_id}".encode() if self.odd == "numbered" else super().task_content(task_id)

    @property
    def system_prompt(self):
        return None if self.odd == "no prompt" else super().system_prompt


if "steppo-test/BreakingKeyDoor-v0" not in gymnasium.registry:
    gymnasium.register("steppo-test/BreakingKeyDoor-v0", entry_point=BreakingKeyDoorEnv)
    gymnasium.register("steppo-test/Odd-v0", entry_point=Odd)
