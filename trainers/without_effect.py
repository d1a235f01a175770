"""Settings that change nothing of a run's numbers, by their part of `config.json`.

A run that is gone on with may have others of these, and runs that differ in nothing else are compared as one.
"""

from __future__ import annotations

from collections.abc import Mapping

WITHOUT_EFFECT: Mapping[str, tuple[str, ...]] = {
    "run": ("resume",),
    "config": (
        # Where the folder lies now.
        "output_dir",
        # What is kept and shown of the run.
        "save_every", "save_steps", "save_total_limit", "save_episodes", "report_to", "run_name", "project",
        "disable_tqdm", "log_level", "log_level_replica", "hub_token",
        # How the machine is used: the same episodes are played, in another order.
        "num_slots", "num_env_workers", "overlap_environments", "env_step_timeout", "dataloader_num_workers",
        "dataloader_pin_memory",
        # Of the process.
        "local_rank", "ddp_timeout",
    ),
}  # fmt: skip
