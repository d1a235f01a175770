"""A small protocol, and lines as its runs would leave them."""

from __future__ import annotations

from steppo_gym.baselines.compared.protocol import Algorithm, GridPoint, Protocol, grid
from steppo_gym.baselines.jobs import Job

STEPPO = Algorithm("steppo", "StepPO", "steppo", ("--num_generations", "1"))
GRPO = Algorithm("grpo", "GRPO", "grpo", ("--num_generations", "8"))
PROTOCOL = Protocol(
    name="small",
    title="A small comparison",
    env="key_door",
    arguments=("--iterations", "4"),
    grid=grid((1e-3, 1e-2), (0.1, 0.2)),
    grid_seeds=(100, 101),
    seeds=(0, 1, 2, 3),
    algorithms=(STEPPO, GRPO),
)
POINT = GridPoint(1e-3, 0.2)


def matrix_line(algorithm: Algorithm, seed: int, success: float, *, protocol: Protocol = PROTOCOL, **changes) -> dict:
    """The line of a run whose test curve rises from 0.1 to `success`."""
    before = 0.1 + 0.01 * seed
    line = Job(protocol, "matrix", algorithm, POINT, seed).identity | {
        "title": algorithm.title,
        "commit": "abc1234",
        "success_before": before,
        "success_after": success,
        "sampled_success_before": before + 0.05,
        "sampled_success_after": success - 0.05,
        "evaluation_tasks": 40,
        "before": {"greedy": {"test": {"success": before}}},
        "after": {"greedy": {"test": {"success": success}}},
        "iterations": 4,
        "episodes": 64,
        "updates": 16,
        "tokens": 1234.0,
        "wall_seconds": 10.0 + seed,
        "resumed": False,
        "versions": {"python": "3.11.7", "torch": "2.13.0"},
        "hardware": {"machine": "x86_64", "cpu_count": 2, "torch_threads": 1, "accelerator": None},
        "seconds_per_update": 0.5,
        "rollout_seconds": 4.0,
        "failed_rate": 0.0,
        "curve": [[0.0, before, before], [2.0, (before + success) / 2, 0.3], [4.0, success, success]],
    }
    return line | changes


def grid_line(
    algorithm: Algorithm, point: GridPoint, seed: int, *heights: float, protocol: Protocol = PROTOCOL
) -> dict:
    """The line of a grid run whose validation curve has these heights."""
    return (
        matrix_line(algorithm, seed, 0.0)
        | Job(protocol, "grid", algorithm, point, seed).identity
        | {
            "success_before": None,
            "success_after": None,
            "curve": [[float(i), height, height] for i, height in enumerate(heights)],
        }
    )


def control_line(control: str, seed: int, success: float, *, protocol: Protocol = PROTOCOL) -> dict:
    """The line of a row without training."""
    return {
        "protocol": protocol.name,
        "protocol_hash": protocol.hash,
        "stage": "control",
        "algorithm": control,
        "title": control,
        "seed": seed,
        "success_after": success,
        "wall_seconds": 1.0,
        "commit": "abc1234",
    }


def cells(text: str) -> list[list[str]]:
    """The cells of all tables in a text, the rules between head and body left out."""
    lines = [line for line in text.splitlines() if line.startswith("|") and "---" not in line]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
