"""How fast a small policy is sampled from in a rollout, beside the limit of its model on this machine.

    python benchmarks/generation.py
    python benchmarks/generation.py --env webshop --policy runs/my-start --episodes 128 --slots 64 128

The limit is a decode of the same lengths with nothing around it: one batch of all episodes, every prompt and every
answer of an environment read in one pass each and without padding, every response token run for all episodes at once,
a cache of fixed size, no episode ever ending early. It is the same forward pass of the same model, and tokens are drawn
in the same way.
Rates are generated tokens per second. All seconds are processor time of one thread. The environments' time is left out
of both rates and stands in the column of the whole rollout.

To compare with another version of this package, run this file with that one's Python, on the same machine at the same
time of day and with the same folder: it finds the modules of both layouts. Older versions know neither the limit nor
streaming: `--no-limit --schedules "two halves" "one group"`.
"""

from __future__ import annotations

import argparse
import importlib
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast


def module(*names: str) -> Any:
    """The first of some modules that this version of the package has."""
    for name in names[:-1]:
        try:
            return importlib.import_module(f"steppo_gym.{name}")
        except ModuleNotFoundError:
            continue
    return importlib.import_module(f"steppo_gym.{names[-1]}")


rollouts = module("rollouts.rollout", "rollout")
pools = module("rollouts.pool", "workers")
EnvFactory = pools.EnvFactory if hasattr(pools, "EnvFactory") else pools.EnvSpec
ChatCodec = module("trainers.policy.chat", "trainers.chat").ChatCodec
ModelPolicy = module("trainers.policy.generation", "trainers.generation").ModelPolicy
SlotCache = module("trainers.policy.slot_cache", "trainers.slot_cache").SlotCache
stop_token_ids = module("trainers.policy.small_policy", "trainers.small_policy").stop_token_ids

ENVS: dict[str, tuple[str, dict[str, Any], int]] = {
    "alfworld": ("steppo/ALFWorld-v0", {"difficulty": "easy"}, 12),
    "hotpotqa": ("steppo/HotpotQA-v0", {"top_k": 2}, 12),
    "webshop": (
        "steppo/WebShop-v0", {"goals": "synthetic", "nouns": "words", "results_per_page": 4}, 24,
    ),
    "paper_search": ("steppo/PaperSearch-v0", {"abstract_words": 0, "listed_papers": 3}, 20),
}  # fmt: skip
"""As the small default policies are trained: id, keywords, and the longest response in tokens."""
SCHEDULES = ("two halves", "one group", "streaming")
ALFWORLD_START = Path(__file__).resolve().parents[1] / "trainers" / "starts" / "alfworld-easy"


def task_ids(spec: Any, number: int) -> list[str]:
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

    def __init__(self, policy: Any) -> None:
        self.policy, self.seconds = policy, 0.0

    def respond(self, requests: Sequence[Any]) -> list[Any]:
        """What the policy answers."""
        started = time.process_time()
        responses = self.policy.respond(requests)
        self.seconds += time.process_time() - started
        return responses

    def submit(self, request: Any) -> None:
        """Hand in a request."""
        self.policy.submit(request)

    def poll(self, timeout: float) -> list[Any]:
        """What the policy has done."""
        started = time.process_time()
        answers = self.policy.poll(timeout)
        self.seconds += time.process_time() - started
        return answers

    def drop(self) -> None:
        """Give up all that is under way."""
        self.policy.drop()


def play(model: Any, codec: Any, env: str, num_slots: int, number: int, schedule: str) -> tuple[float, float, Any]:
    """One rollout without workers: seconds of generation, seconds of all, and what was played."""
    env_id, kwargs, max_response_tokens = ENVS[env]
    spec = EnvFactory(env_id, {"split": "train", "context": "append", **kwargs})
    assignments = [rollouts.Assignment(task, seed=i) for i, task in enumerate(task_ids(spec, number))]
    policy = ModelPolicy(
        model,
        num_slots=num_slots,
        stop_token_ids=codec.stop_token_ids,
        pad_token_id=0,
        max_response_tokens=max_response_tokens,
        seed=0,
    )
    how = {"streaming": True} if schedule == "streaming" else {"overlap": schedule == "two halves"}
    with pools.EnvPool(spec, num_slots=num_slots, num_workers=0) as pool:
        timed, started = TimedPolicy(policy), time.process_time()
        rollout = rollouts.collect(timed, pool, codec, assignments, **how)
        return timed.seconds, time.process_time() - started, rollout


@torch.inference_mode()
def limit_seconds(model: Any, episodes: Sequence[Any]) -> tuple[float, float]:
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
    parser.add_argument("--env", choices=ENVS, default="alfworld")
    parser.add_argument("--policy", type=Path, default=ALFWORLD_START, help="folder of a small policy for it")
    parser.add_argument("--episodes", type=int, default=128)
    parser.add_argument("--slots", type=int, nargs="+", default=[64, 128])
    parser.add_argument("--schedules", choices=SCHEDULES, nargs="+", default=SCHEDULES)
    parser.add_argument("--repeats", type=int, default=2, help="the fastest is printed")
    parser.add_argument("--limit", action=argparse.BooleanOptionalAction, default=True)
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = AutoModelForCausalLM.from_pretrained(options.policy)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(options.policy, padding_side="left")
    codec = ChatCodec(tokenizer, stop_token_ids=stop_token_ids(tokenizer))
    play(model, codec, options.env, 8, 8, "one group")
    print("| slots | schedule | steps | tokens | tokens/s of generation | generation, s | rollout, s | mean batch |")
    print("|---|---|---|---|---|---|---|---|")
    episodes: Sequence[Any] = ()
    for slots in options.slots:
        for schedule in options.schedules:
            runs = [play(model, codec, options.env, slots, options.episodes, schedule) for _ in range(options.repeats)]
            generation, whole, rollout = min(runs, key=lambda run: run[0])
            episodes, stats = rollout.episodes, rollout.stats
            print(
                f"| {slots} | {schedule} | {stats.num_steps} | {stats.num_generated_tokens} | "
                f"{stats.num_generated_tokens / generation:.0f} | {generation:.2f} | {whole:.2f} | "
                f"{stats.mean_batch_size:.1f} |",
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
