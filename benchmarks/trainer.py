"""Training side by side: this package's trainer, TRL's own GRPOTrainer, and lock-step rollouts of padded rows.

    python benchmarks/trainer.py --steps 4 8 16 32

The same in each: task, starting policy, tokenizer, texts, seeds, rule (GRPO: one advantage for an episode), learning
rate, episodes and groups of an iteration, updates. The task is KeyDoor with a way so long that every episode is cut
after exactly `steps` responses, whatever the policy says, so that all play the same number of steps. Each side runs in
a process of its own, whose largest memory is read at its end; its first iteration is not counted. Seconds are
processor time of that process, which has one thread, so that a busy machine changes little.

- `steppo-gym`: `StepTrainer`, slots refilled, an episode trained as one row without padding between rows.
- `steppo-gym, ...`: with `--left-out`, the same without one of its savings, see `LEFT_OUT`.
- `trl`: `GRPOTrainer(environment_factory=..)` through `steppo_gym.adapters.trl`. TRL looks for calls in a response;
  here every response is one, as the small policy writes no JSON. It says one more response after the last step, as it
  always does, and has no limit for a single response.
- `padded`: how verl-agent and others do it. All episodes are generated for at every step by transformers' `generate`,
  and each step is a row with its whole prompt, padded to the longest; one forward and backward over all rows.

The ratios are printed and nothing is demanded of them.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")

import torch
from transformers import PreTrainedTokenizerFast, Qwen3ForCausalLM, TrainerCallback

ENV_ID = "steppo/KeyDoor-v0"
LEFT_OUT: dict[str, dict[str, Any]] = {
    "steppo-gym, two halves": {"overlap_environments": True},
    "steppo-gym, half the slots": {"num_slots": 0.5},
    "steppo-gym, log-probabilities computed again": {"recompute_log_probs": True},
    "steppo-gym, a pass for each row": {"max_tokens_per_micro_batch": 1},
}
"""Settings that leave out one saving each; `num_slots` as a share of the episodes of an iteration."""
ARMS = ("steppo-gym", "trl", "padded")
RESPONSE_TOKENS = 12
LEARNING_RATE = 1e-4


@dataclass(frozen=True)
class Work:
    """What every side does."""

    steps: int
    episodes: int
    group: int
    iterations: int
    policy: str
    arm: str = "steppo-gym"


@dataclass
class Measured:
    """One side, without its first iteration."""

    arm: str
    steps: int
    seconds: float
    episodes: int
    env_steps: int
    generated_tokens: int
    """All of them are trained on."""
    peak_mib: float
    padding: float | None = None
    """Share of padding among the positions of the update; None where it is not known."""
    phases: dict[str, float] = field(default_factory=dict)
    """Share of the time."""

    @property
    def episodes_per_hour(self) -> float:
        """Throughput."""
        return 3600 * self.episodes / self.seconds


class Clock(TrainerCallback):
    """When each update ended; one is an iteration here."""

    def __init__(self) -> None:
        self.ends: list[float] = []
        """Processor time."""
        self.by_the_clock: list[float] = []

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Note the time."""
        self.ends.append(time.process_time())
        self.by_the_clock.append(time.perf_counter())

    def shares(self, spent: dict[str, float]) -> dict[str, float]:
        """Of phases that were timed by the clock, in the time between the first update's end and the last's."""
        return {name: value / (self.by_the_clock[-1] - self.by_the_clock[0]) for name, value in spent.items()}


def env_arguments(steps: int) -> dict[str, Any]:
    """A way of `steps` steps, after which the episode is cut."""
    return {"routine_steps": steps, "max_steps": steps}


def task_ids(work: Work) -> list[str]:
    """The tasks of all iterations: a group for each."""
    return [f"train-{number}" for number in range(work.iterations * work.episodes // work.group)]


def make_policy(folder: Path, *, hidden_size: int, updates: int) -> None:
    """A policy that has seen a little of the way, and ends its responses."""
    from steppo_gym.rollouts.pool import EnvFactory
    from steppo_gym.trainers.policy.small_policy import SmallPolicyConfig
    from steppo_gym.trainers.warm_start.warm_start import WarmStartConfig, warm_started_policy

    spec = EnvFactory(ENV_ID, {"context": "append", **env_arguments(8)})
    sizes = SmallPolicyConfig(hidden_size=hidden_size, vocab_size=340)
    config = WarmStartConfig(num_updates=updates, observation_weight=0.0, policy=sizes)
    tasks = [f"train-{number}" for number in range(500, 600)]
    made = warm_started_policy(spec, tasks, config, seed=0, num_workers=0, progress=False)
    shutil.copytree(made, folder, dirs_exist_ok=True)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    tokenizer.chat_template = str(tokenizer.chat_template).replace(
        "message.role == 'user'", "message.role in ('user', 'tool')"
    )
    tokenizer.save_pretrained(folder)


def ours(work: Work, folder: str) -> Measured:
    """This package's trainer."""
    from steppo_gym.rollouts.pool import EnvFactory
    from steppo_gym.trainers.rules import ALGORITHMS
    from steppo_gym.trainers.step_config import StepConfig
    from steppo_gym.trainers.step_trainer import StepTrainer

    rule, clock = ALGORITHMS["grpo"], Clock()
    settings: dict[str, Any] = {"num_slots": 1.0, **LEFT_OUT.get(work.arm, {})}
    settings["num_slots"] = int(settings["num_slots"] * work.episodes)
    config = StepConfig.for_rule(
        rule, output_dir=folder, iterations=work.iterations, episodes_per_iteration=work.episodes,
        num_generations=work.group, updates_per_iteration=1, max_completion_length=RESPONSE_TOKENS,
        num_env_workers=0, evaluate_every=0, save_every=0, report_to="none", disable_tqdm=True,
        use_cpu=True, learning_rate=LEARNING_RATE, save_episodes=False, record_credit=0, **settings,
    )  # fmt: skip
    trainer = StepTrainer(
        Qwen3ForCausalLM.from_pretrained(work.policy), config, rule=rule(), critic_config=None,
        spec=EnvFactory(ENV_ID, {"context": "append", **env_arguments(work.steps)}), task_ids=task_ids(work),
        processing_class=PreTrainedTokenizerFast.from_pretrained(work.policy), callbacks=[clock],
    )  # fmt: skip
    trainer.train()
    logs = [entry for entry in trainer.state.log_history if "rollout_seconds" in entry][1:]
    seconds = clock.ends[-1] - clock.ends[0]
    spent = {
        "generation": sum(log["generation_seconds"] for log in logs),
        "environments": sum(log["environment_wait_seconds"] for log in logs),
        "credit": sum(log["credit_seconds"] for log in logs),
        "update": sum(log["update_seconds"] for log in logs),
    }
    tokens = round(sum(log["generated_tokens"] for log in logs))
    padding = sum(log["padding_share"] for log in logs) / len(logs)
    return _measured(work.arm, work, seconds, tokens, clock.shares(spent), padding)


def trl(work: Work, folder: str) -> Measured:
    """TRL's own trainer."""
    from datasets import Dataset
    from trl.trainer.grpo_config import GRPOConfig
    from trl.trainer.grpo_trainer import GRPOTrainer

    from steppo_gym.adapters.trl import environment_class, rows, score

    class EveryResponseIsACall(PreTrainedTokenizerFast):
        """Reads `<action>..</action>` as a call of the tool, and anything else too."""

        def parse_response(self, response: Any, *_: Any, **__: Any) -> dict[str, Any]:
            text = str(self.decode(response, skip_special_tokens=True))
            said = text.partition("<action>")[2].partition("</action>")[0] or text
            call = {"type": "function", "function": {"name": "action", "arguments": {"action": said}}}
            return {"role": "assistant", "content": "", "tool_calls": [call]}

    class Timed(GRPOTrainer):
        """Notes what the rollouts took and how much of the batches is padding."""

        seen: list[dict[str, float]]

        def _generate_and_score_completions(self, inputs: Any) -> Any:
            start = time.perf_counter()
            out = super()._generate_and_score_completions(inputs)
            masks, shown = out["completion_mask"], out["prompt_mask"]
            written = out["tool_mask"].sum() if "tool_mask" in out else masks.sum()
            padded = masks.numel() + shown.numel() - masks.sum() - shown.sum()
            self.seen.append(
                {
                    "seconds": time.perf_counter() - start,
                    "generated": float(written),
                    "padding": float(padded) / (masks.numel() + shown.numel()),
                }
            )
            return out

    tokenizer, clock = EveryResponseIsACall.from_pretrained(work.policy), Clock()
    # Not read, but TRL parses responses only where there is one.
    tokenizer.response_template = {"defaults": {"role": "assistant"}}  # type: ignore[attr-defined]
    # TRL demands that a template shows calls; here they are never rendered, for the ids that were sampled are kept.
    tokenizer.chat_template = str(tokenizer.chat_template).replace(
        "message.content + '<|end|>'",
        "(message.tool_calls | tojson if message.tool_calls else message.content) + '<|end|>'",
    )
    arguments = env_arguments(work.steps)
    data = Dataset.from_list(rows(ENV_ID, task_ids(work), **arguments))
    trainer = Timed(
        Qwen3ForCausalLM.from_pretrained(work.policy), reward_funcs=cast(Any, [score]), processing_class=tokenizer,
        train_dataset=data,
        environment_factory=environment_class(ENV_ID, **arguments), callbacks=[clock],
        args=GRPOConfig(
            output_dir=folder, max_steps=work.iterations, num_generations=work.group, report_to="none", use_cpu=True,
            per_device_train_batch_size=work.episodes, save_strategy="no", disable_tqdm=True, bf16=False,
            max_tool_calling_iterations=work.steps, learning_rate=LEARNING_RATE, lr_scheduler_type="constant",
            # Of the whole conversation; a response ends by itself.
            max_completion_length=64 * work.steps + 64, shuffle_dataset=False, logging_steps=1,
        ),
    )  # fmt: skip
    trainer.seen = []
    trainer.train()
    seen = trainer.seen[1 : work.iterations]
    seconds, tokens = clock.ends[-1] - clock.ends[0], round(sum(one["generated"] for one in seen))
    shares = clock.shares({"rollout": sum(one["seconds"] for one in seen)})
    shares["update"] = 1 - shares["rollout"]
    return _measured("trl", work, seconds, tokens, shares, sum(one["padding"] for one in seen) / len(seen))


def padded(work: Work, folder: str) -> Measured:
    """Lock-step rollouts, and a padded row for each step."""
    import gymnasium

    from steppo_gym.credit import group_advantages
    from steppo_gym.trainers.policy.chat import ChatCodec

    del folder
    tokenizer = PreTrainedTokenizerFast.from_pretrained(work.policy)
    model = Qwen3ForCausalLM.from_pretrained(work.policy)
    codec, pad = ChatCodec(tokenizer), int(tokenizer.pad_token_id)  # type: ignore[arg-type]
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE)
    envs: list[Any] = [
        gymnasium.make(ENV_ID, context="append", **env_arguments(work.steps)).unwrapped for _ in range(work.episodes)
    ]
    torch.manual_seed(0)
    ends, tokens, spent, shares = [], [], {"generation": 0.0, "environments": 0.0, "update": 0.0}, []
    for iteration in range(work.iterations):
        if iteration == 1:
            spent = dict.fromkeys(spent, 0.0)
        first = iteration * work.episodes // work.group
        tasks = [f"train-{first + number // work.group}" for number in range(work.episodes)]
        starts = [env.reset(seed=0, options={"task_id": task})[0] for env, task in zip(envs, tasks, strict=True)]
        prompts = [codec.first_prompt(env.system_prompt, (), start) for env, start in zip(envs, starts, strict=True)]
        steps: list[tuple[int, tuple[int, ...], tuple[int, ...]]] = []
        returns = [0.0] * work.episodes
        for _ in range(work.steps):
            begun = time.process_time()
            responses = _generate(model, prompts, pad)
            spent["generation"] += time.process_time() - begun
            begun = time.process_time()
            for number, (env, response) in enumerate(zip(envs, responses, strict=True)):
                steps.append((number, prompts[number], response))
                observation, reward, *_ = env.step(codec.decode_response(response))
                returns[number] += reward
                prompts[number] = codec.next_prompt((*prompts[number], *response), observation)
            spent["environments"] += time.process_time() - begun
        begun = time.process_time()
        groups = [number // work.group for number in range(work.episodes)]
        advantages = group_advantages(returns, groups)
        shares.append(_update(model, optimizer, [(advantages[n], p, r) for n, p, r in steps], pad))
        spent["update"] += time.process_time() - begun
        tokens.append(sum(len(response) for _, _, response in steps))
        ends.append(time.process_time())
    seconds, padding = ends[-1] - ends[0], sum(shares[1:]) / len(shares[1:])
    spent = {name: value / seconds for name, value in spent.items()}
    return _measured("padded", work, seconds, sum(tokens[1:]), spent, padding)


def _left_padded(rows: Sequence[Sequence[int]], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    longest = max(map(len, rows))
    ids = torch.tensor([[pad] * (longest - len(row)) + list(row) for row in rows])
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows])
    return ids, mask


def _generate(model: Any, prompts: Sequence[tuple[int, ...]], pad: int) -> list[tuple[int, ...]]:
    ids, mask = _left_padded(prompts, pad)
    with torch.no_grad():
        out = model.generate(
            input_ids=ids,
            attention_mask=mask,
            do_sample=True,
            top_k=0,
            max_new_tokens=RESPONSE_TOKENS,
            pad_token_id=pad,
        )
    return [tuple(token for token in row if token != pad) for row in out[:, ids.shape[1] :].tolist()]


def _update(
    model: Any, optimizer: Any, rows: Sequence[tuple[float, tuple[int, ...], tuple[int, ...]]], pad: int
) -> float:
    """One update, the rows in micro-batches of 16; returns the share of padding."""
    longest, padding = max(len(prompt) + len(response) for _, prompt, response in rows), 0
    for start in range(0, len(rows), 16):
        part = rows[start : start + 16]
        # Every row as long as the longest of all, as where a batch is one tensor.
        ids, mask = _left_padded([*((*prompt, *response) for _, prompt, response in part), (pad,) * longest], pad)
        ids, mask = ids[:-1], mask[:-1]
        logits = model(input_ids=ids, attention_mask=mask).logits[:, :-1].float()
        taken = torch.log_softmax(logits, -1).gather(-1, ids[:, 1:, None])[..., 0]
        lengths = torch.tensor([len(response) for _, _, response in part])
        written = torch.arange(longest - 1) >= (longest - 1 - lengths)[:, None]
        weights = torch.tensor([advantage for advantage, _, _ in part])[:, None] * written
        (-(weights * taken).sum() / sum(len(response) for _, _, response in rows)).backward()
        padding += int((mask == 0).sum())
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
    return padding / (longest * len(rows))


def _measured(
    arm: str, work: Work, seconds: float, generated: int, shares: dict[str, float], padding: float | None
) -> Measured:
    episodes = (work.iterations - 1) * work.episodes
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    shares["other"] = max(0.0, 1 - sum(shares.values()))
    return Measured(arm, work.steps, seconds, episodes, episodes * work.steps, generated, peak, padding, shares)


def measure(arm: str, work: Work) -> Measured:
    """One side in a process of its own."""
    command = [sys.executable, __file__, "--arm", arm, "--work", json.dumps(asdict(replace(work, arm=arm)))]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{arm} failed:\n{done.stderr[-3000:]}")
    return Measured(**json.loads(done.stdout.splitlines()[-1]))


def table(results: Sequence[Measured]) -> str:
    """The table of all sides; ratios are of episodes per hour, ours to theirs."""
    lines = [
        "| steps | trainer | episodes/h | ours / it | env steps/s | tokens/s generated and trained on | padding "
        "| peak MiB | share of time |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for one in results:
        base = next(r for r in results if r.arm == ARMS[0] and r.steps == one.steps)
        shares = ", ".join(f"{name} {100 * share:.0f} %" for name, share in one.phases.items())
        padding = "-" if one.padding is None else f"{100 * one.padding:.0f} %"
        lines.append(
            f"| {one.steps} | {one.arm} | {one.episodes_per_hour:,.0f} "
            f"| {base.episodes_per_hour / one.episodes_per_hour:.2f} | {one.env_steps / one.seconds:,.0f} "
            f"| {one.generated_tokens / one.seconds:,.0f} | {padding} "
            f"| {one.peak_mib:,.0f} | {shares} |"
        )
    return "\n".join(lines)


def growth(results: Sequence[Measured]) -> str:
    """How the time of an episode grows: steps twice as many, time so many times as long."""
    lines = []
    for arm in dict.fromkeys(one.arm for one in results):
        own = sorted((one for one in results if one.arm == arm), key=lambda one: one.steps)
        for before, after in pairwise(own):
            times = before.episodes_per_hour / after.episodes_per_hour
            lines.append(f"{arm}: {before.steps} to {after.steps} steps, an episode takes {times:.2f} times as long")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> list[Measured]:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, nargs="+", default=[4, 8, 16, 32], help="of an episode")
    parser.add_argument("--episodes", type=int, default=32, help="of an iteration (default: %(default)s)")
    parser.add_argument("--group", type=int, default=8, help="episodes of one task (default: %(default)s)")
    parser.add_argument("--iterations", type=int, default=4, help="the first is not counted (default: %(default)s)")
    parser.add_argument("--hidden_size", type=int, default=96, help="of the policy (default: %(default)s)")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=ARMS)
    parser.add_argument("--left-out", action="store_true", help="also without each of our savings in turn")
    parser.add_argument("--tiny", action="store_true", help="seconds instead of minutes, to see that it runs")
    parser.add_argument("--arm", choices=(*ARMS, *LEFT_OUT), help=argparse.SUPPRESS)
    parser.add_argument("--work", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    if options.arm:
        work = Work(**json.loads(options.work))
        with tempfile.TemporaryDirectory() as folder:
            run = {"trl": trl, "padded": padded}.get(options.arm, ours)
            print(json.dumps(asdict(run(work, folder))))
        return []
    if options.tiny:
        options.steps, options.episodes, options.group, options.iterations, options.hidden_size = [2], 4, 2, 2, 16
    with tempfile.TemporaryDirectory() as folder:
        make_policy(Path(folder), hidden_size=options.hidden_size, updates=20 if options.tiny else 150)
        results = []
        for steps in options.steps:
            work = Work(steps, options.episodes, options.group, options.iterations, folder)
            for arm in (*options.arms, *(LEFT_OUT if options.left_out else ())):
                results.append(measure(arm, work))
                said = f"{arm}, {steps} steps: {results[-1].episodes_per_hour:,.0f} episodes/h"
                print(said, file=sys.stderr, flush=True)
    print(table(results))
    print(growth(results))
    return results


if __name__ == "__main__":
    main()
