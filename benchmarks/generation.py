"""How fast the default ALFWorld policy is sampled from, beside the limit of its model on this machine.

    python benchmarks/generation.py
    python benchmarks/generation.py --policy runs/my-policy --episodes 128 --slots 32 64 128

The limit is a decode of the same lengths with nothing around it: one batch of all episodes, every prompt and every
answer of an environment read in one pass each and without padding, every response token run for all episodes at once,
a cache of fixed size, no episode ever ending early. It is the same forward pass of the same model, and tokens are drawn
in the same way.
Rates are generated tokens per second. All seconds are processor time of one thread. The environments' time is left out
of both rates and stands in the column of the whole rollout.

To compare with another version of this package, run the file there too, on the same machine at the same time of day:
nothing here depends on what has changed since but the policy's own interface.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

# `benchmarks/alfworld.py` would stand in for the package of that name.
sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != Path(__file__).resolve().parent]

from steppo_gym.rollouts.episode import Episode  # noqa: E402
from steppo_gym.rollouts.policies import Answer, Request, Response  # noqa: E402
from steppo_gym.rollouts.pool import EnvFactory, EnvPool  # noqa: E402
from steppo_gym.rollouts.rollout import Assignment, Rollout, collect  # noqa: E402
from steppo_gym.trainers.policy.chat import ChatCodec  # noqa: E402
from steppo_gym.trainers.policy.generation import ModelPolicy  # noqa: E402
from steppo_gym.trainers.policy.slot_cache import SlotCache  # noqa: E402
from steppo_gym.trainers.policy.small_policy import stop_token_ids  # noqa: E402
from steppo_gym.trainers.warm_start.warm_start import WarmStartConfig, warm_started_policy  # noqa: E402

MAX_RESPONSE_TOKENS = 12
SCHEDULES = ("two halves", "one group", "streaming")


def default_policy(folder: Path | None) -> tuple[Any, PreTrainedTokenizerFast]:
    """The warm-started policy in a folder, or a new one; a short warm start will do."""
    if folder is None:
        spec = EnvFactory(
            "steppo/ALFWorld-v0", {"split": "train", "difficulty": "easy", "context": "append", "expert": "hasty"}
        )
        config = WarmStartConfig(num_demonstrations=300, num_updates=250)
        folder = warm_started_policy(spec, task_ids(spec, 300), config, seed=0, num_workers=0)
    model = AutoModelForCausalLM.from_pretrained(folder)
    return model, PreTrainedTokenizerFast.from_pretrained(folder, padding_side="left")


def task_ids(spec: EnvFactory, number: int) -> list[str]:
    """The first tasks of an environment."""
    env = spec.make()
    try:
        return [env.task_ids[i] for i in range(number)]
    finally:
        env.close()


class TimedPolicy:
    """Counts the processor seconds of the calls of a policy; on a busy machine they vary less than the clock's."""

    needs_expert = False
    prefers_streaming = False

    def __init__(self, policy: ModelPolicy) -> None:
        self.policy, self.seconds = policy, 0.0

    def respond(self, requests: Sequence[Request]) -> list[Response]:
        """What the policy answers."""
        started = time.process_time()
        responses = self.policy.respond(requests)
        self.seconds += time.process_time() - started
        return responses

    def submit(self, request: Request) -> None:
        """Hand in a request."""
        self.policy.submit(request)

    def poll(self, timeout: float) -> list[Answer]:
        """What the policy has done."""
        started = time.process_time()
        answers = self.policy.poll(timeout)
        self.seconds += time.process_time() - started
        return answers

    def drop(self) -> None:
        """Give up all that is under way."""
        self.policy.drop()


def play(model: Any, codec: ChatCodec, num_slots: int, number: int, schedule: str) -> tuple[float, float, Rollout]:
    """One rollout without workers: seconds of generation, seconds of all, and what was played."""
    spec = EnvFactory("steppo/ALFWorld-v0", {"split": "train", "difficulty": "easy", "context": "append"})
    assignments = [Assignment(task, seed=i) for i, task in enumerate(task_ids(spec, number))]
    policy = ModelPolicy(
        model,
        num_slots=num_slots,
        stop_token_ids=codec.stop_token_ids,
        pad_token_id=0,
        max_response_tokens=MAX_RESPONSE_TOKENS,
        seed=0,
    )
    with EnvPool(spec, num_slots=num_slots, num_workers=0) as pool:
        timed, started = TimedPolicy(policy), time.process_time()
        rollout = collect(
            timed, pool, codec, assignments, overlap=schedule == "two halves", streaming=schedule == "streaming"
        )
        return timed.seconds, time.process_time() - started, rollout


@torch.inference_mode()
def limit_seconds(model: Any, episodes: Sequence[Episode]) -> tuple[float, float]:
    """Seconds of reading and of decoding the same numbers of tokens in one batch, with every length the mean."""
    model.eval()
    steps = [step for episode in episodes for step in episode.steps]
    rows, generated = len(episodes), sum(len(step.response_ids) for step in steps)
    whole = sum(len(episode.steps[-1].prompt_ids) + len(episode.steps[-1].response_ids) for episode in episodes)
    first = round(sum(len(episode.steps[0].prompt_ids) for episode in episodes) / rows)
    num_steps = round(len(steps) / rows)
    per_response = round(generated / len(steps))
    per_answer = round((whole - rows * first - generated) / max(len(steps) - rows, 1))
    cache = SlotCache(model.config.num_hidden_layers, rows)
    cache.capacity = first + num_steps * (per_response + per_answer) + 1
    seconds = [0.0, 0.0]
    known = 0

    def run(new: int) -> torch.Tensor:
        nonlocal known
        lengths = torch.full((rows,), known)
        positions, mask = cache.address(slice(0, rows), lengths, new, known + new)
        known += new
        ids = torch.full((rows, new), 5)
        return model(
            input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True,
            logits_to_keep=1,
        ).logits[:, 0]  # fmt: skip

    for step in range(num_steps):
        started = time.process_time()
        logits = run(first if step == 0 else per_answer)
        read = time.process_time()
        for _ in range(per_response):
            cumulative = torch.log_softmax(logits, dim=-1).exp().cumsum(dim=-1)
            torch.searchsorted(cumulative, torch.rand(rows, 1))
            logits = run(1)
        seconds[0] += read - started
        seconds[1] += time.process_time() - read
    scale = generated / (rows * num_steps * per_response)
    return seconds[0] * scale, seconds[1] * scale


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--policy", type=Path, help="folder of a warm-started ALFWorld policy; a new one by default")
    parser.add_argument("--episodes", type=int, default=128)
    parser.add_argument("--slots", type=int, nargs="+", default=[32, 64, 128])
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--limit", action=argparse.BooleanOptionalAction, default=True)
    options = parser.parse_args()
    torch.set_num_threads(1)
    model, tokenizer = default_policy(options.policy)
    codec = ChatCodec(tokenizer, stop_token_ids=stop_token_ids(tokenizer))
    play(model, codec, 8, 8, "one group")
    print("| slots | schedule | tokens | tokens/s of generation | generation, s | rollout, s | mean batch |")
    print("|---|---|---|---|---|---|---|")
    episodes: Sequence[Episode] = ()
    for slots in options.slots:
        for schedule in SCHEDULES:
            runs = [play(model, codec, slots, options.episodes, schedule) for _ in range(options.repeats)]
            generation, whole, rollout = min(runs, key=lambda run: run[0])
            episodes, tokens = rollout.episodes, rollout.stats.num_generated_tokens
            print(
                f"| {slots} | {schedule} | {tokens} | {tokens / generation:.0f} | "
                f"{generation:.2f} | {whole:.2f} | {rollout.stats.mean_batch_size:.1f} |",
                flush=True,
            )
    if options.limit:
        reading, decoding = min((limit_seconds(model, episodes) for _ in range(options.repeats)), key=sum)
        tokens = sum(len(step.response_ids) for episode in episodes for step in episode.steps)
        print(
            f"\nLimit: {tokens / decoding:.0f} tokens/s decoding alone, {tokens / (reading + decoding):.0f} with what "
            f"the environments said read as well ({reading:.2f} s reading, {decoding:.2f} s decoding)."
        )


if __name__ == "__main__":
    main()
