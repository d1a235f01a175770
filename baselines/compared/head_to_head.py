"""Credit rules head to head, on several tasks: written down in `preregistered/head_to_head.md` before the first run."""

from __future__ import annotations

from dataclasses import replace

from steppo_gym.baselines.compared.protocol import Algorithm, GridPoint, Protocol, grid
from steppo_gym.baselines.compared.rows import BOOTSTRAP, KEEP_LITTLE, with_options

_STEP_CRITIC = (
    "--gae_lambda 0.95",
    "--gae_lambda 0.95 --bootstrap_truncated False",
    "--gae_lambda 1.0 --bootstrap_truncated False",
)
# A step of KeyDoor has about five tokens, and 0.99 ** 5 is 0.95.
_TOKEN_CRITIC = tuple(option.replace("0.95", "0.99") for option in _STEP_CRITIC)
_GROUP_SIZES = ("--num_generations 4", "--num_generations 8", "--num_generations 16")
_STATE_GROUPS = ("--num_generations 8", "--num_generations 16", "--num_generations 8 --normalize_std False")

HEAD_TO_HEAD_KEY_DOOR = Protocol(
    name="head_to_head_key_door",
    title="KeyDoor, head to head",
    env="key_door",
    arguments=(
        "--iterations", "8", "--episodes_per_iteration", "128", "--updates_per_iteration", "8",
        "--evaluate_every", "1", "--test_tasks", "200", "--validation_tasks", "200",
        "--critic_learning_rate", "2e-3", "--max_completion_length", "12", "--temperature", "1.0",
    ),
    grid=grid((2e-4, 5e-4), (0.2,)),
    grid_seeds=(100, 101, 102),
    seeds=tuple(range(10)),
    algorithms=(
        with_options("steppo", *_STEP_CRITIC),
        with_options("capo", *_STEP_CRITIC),
        with_options("ppo", *_TOKEN_CRITIC),
        *(with_options(key, *_GROUP_SIZES) for key in ("grpo", "rloo", "gspo")),
        with_options("reinforce_pp", "--gamma 1.0", "--gamma 0.995", "--gamma 0.99"),
        *(with_options(key, *_STATE_GROUPS) for key in ("gigpo", "hgpo", "gagpo")),
    ),
    grid_arguments=("--evaluate_every", "4"),
    machine_arguments=(*KEEP_LITTLE, "--num_env_workers", "0", "--save_every", "4"),
    defaults=BOOTSTRAP,
    instructions="avx2",
    one_code=True,
    score=0.7,
    watched="validation",
    comparison="head to head",
)  # fmt: skip

_CHOSEN = (
    with_options("steppo", "--gae_lambda 0.95"),
    with_options("capo", "--gae_lambda 0.95"),
    with_options("ppo", "--gae_lambda 0.99"),
    with_options("grpo", "--num_generations 4"),
    with_options("gigpo", "--num_generations 16"),
    with_options("rloo", "--num_generations 8"),
    with_options("reinforce_pp", "--gamma 0.995"),
    with_options("gspo", "--num_generations 8"),
    with_options("gagpo", "--num_generations 8"),
    with_options("hgpo", "--num_generations 16"),
)
"""What the grid of KeyDoor chose of each rule's own options; that none bootstraps at the step limit is the default."""
_FIVE = _CHOSEN[:5]


def _on(
    env: str,
    title: str,
    start: str,
    *arguments: str,
    algorithms: tuple[Algorithm, ...] = _FIVE,
    grid_arguments: tuple[str, ...] = (),
    score: float,
    lists_actions: bool = False,
    metrics: tuple[str, ...] = (),
) -> Protocol:
    """A task whose runs begin with starts that read: the shipped one and four made from it."""
    return Protocol(
        name=f"head_to_head_{env}",
        title=f"{title}, head to head",
        env=env,
        arguments=(
            *arguments, "--iterations", "6", "--episodes_per_iteration", "128", "--evaluate_every", "2",
            "--temperature", "1.0", "--invalid_action_reward", "0",
        ),
        grid=grid((1e-4, 3e-4), (0.2,)),
        grid_seeds=(100, 101, 102),
        seeds=tuple(range(10)),
        algorithms=algorithms,
        grid_arguments=grid_arguments,
        machine_arguments=(*KEEP_LITTLE, "--num_env_workers", "0", "--save_every", "3"),
        starts=(f"trainers/starts/{start}", *(f"baselines/starts/{start}-{number}" for number in range(1, 5))),
        lists_actions=lists_actions,
        metrics=metrics,
        instructions="avx2",
        one_code=True,
        score=score,
        watched="validation",
        comparison=HEAD_TO_HEAD_KEY_DOOR.comparison,
    )  # fmt: skip


_AT_THE_END = ("--evaluate_every", "6")
"""Of grid runs that watch the validation tasks at their end alone, so that a tie goes to the smaller learning rate."""
_SEARCHING = (
    "--updates_per_iteration", "4", "--test_tasks", "200", "--validation_tasks", "100",
    "--critic_learning_rate", "1e-3",
)  # fmt: skip
HEAD_TO_HEAD_ALFWORLD = _on(
    "alfworld", "Procedural ALFWorld easy", "alfworld-easy",
    # Of each of the two splits.
    "--difficulty", "easy", "--test_tasks", "100", "--validation_tasks", "50",
    "--updates_per_iteration", "8", "--critic_learning_rate", "2e-3", "--max_completion_length", "12",
    algorithms=_CHOSEN, score=0.7, lists_actions=True,
)  # fmt: skip
HEAD_TO_HEAD_HOTPOTQA = _on(
    "hotpotqa", "Procedural HotpotQA", "hotpotqa", *_SEARCHING, "--max_completion_length", "12",
    grid_arguments=_AT_THE_END, score=0.7, metrics=("f1", "searches"),
)  # fmt: skip
HEAD_TO_HEAD_PAPER_SEARCH = _on(
    "paper_search", "Built-in paper search", "paper_search", *_SEARCHING, "--max_completion_length", "20",
    grid_arguments=_AT_THE_END, score=0.8, metrics=("recall", "f1", "return"),
)  # fmt: skip
PAPER_SEARCH_GIGPO_RATE = replace(
    HEAD_TO_HEAD_PAPER_SEARCH,
    name="paper_search_gigpo_rate",
    title="Built-in paper search, GiGPO at the other rate",
    grid=(GridPoint(3e-4, 0.2),),
    grid_seeds=(),
    grid_arguments=(),
    algorithms=(with_options("gigpo", "--num_generations 16"),),
    comparison="",
    tuning=(
        "the learning rate that the other four rules chose head to head; GiGPO's grid ended alike at both rates, a "
        "tie goes to the smaller one, and these runs were added after that result had been seen"
    ),
)
HEAD_TO_HEAD_WEBSHOP = _on(
    "webshop", "Built-in WebShop", "webshop", *_SEARCHING, "--max_completion_length", "48",
    score=0.6, lists_actions=True, metrics=("task_score", "return"),
)  # fmt: skip

HEAD_TO_HEAD = (
    HEAD_TO_HEAD_KEY_DOOR,
    HEAD_TO_HEAD_ALFWORLD,
    HEAD_TO_HEAD_HOTPOTQA,
    HEAD_TO_HEAD_PAPER_SEARCH,
    HEAD_TO_HEAD_WEBSHOP,
)
