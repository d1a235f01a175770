"""Folders of runs for the viewer, written by hand: what is in them is known, and they need no training."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from steppo_gym.evaluation.results import results
from steppo_gym.rollouts.episode import Episode, Failure, Step, write_episodes

HOSTILE = (
    "<script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'></script></pre><!-- "
    "\x00\x07\x1b[31mred\x7f \u202etxet desrever\u202c &lt;b&gt; \u2028 ${hacked} 😀\U000e0041"
)


def byte_tokenizer() -> Tokenizer:
    """A token for every byte, so that every text has one."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={letter: number for number, letter in enumerate(letters)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


TOKENIZER = byte_tokenizer()


def ids(text: str) -> tuple[int, ...]:
    return tuple(TOKENIZER.encode(text).ids)


def played(
    task: str,
    turns: list[tuple[str, str]],
    *,
    success: bool = False,
    ended: str = "terminated",
    group: int = 0,
    reward: float | None = None,
    invalid: tuple[int, ...] = (),
    context: str = "append",
) -> Episode:
    """An episode of observations and responses; states are the same where the number of the step is."""
    steps: list[Step] = []
    before: tuple[int, ...] = ()
    for number, (observation, response) in enumerate(turns):
        prompt = before + ids(observation) if context == "append" else ids(f"RULES {observation} NOW")
        earned = (float(success) if reward is None else reward) if number == len(turns) - 1 else 0.0
        why = "Expected one action." if number in invalid else None
        steps.append(Step(prompt, ids(response), None, response, earned, f"{task}/{number}", why))
        before = prompt + steps[-1].response_ids
    return Episode(
        task,
        tuple(steps),
        ended,  # type: ignore[arg-type]
        final_prompt_ids=before + ids("That was the last step.") if ended == "truncated" else None,
        success=success,
        metrics={"score": 0.25},
        failure=Failure("worker", "died") if ended == "failed" else None,
        seed=7,
        group=group,
    )


def write_run(folder: Path, files: dict[str, list[Episode]], *, algorithm: str = "StepPO", sampled: int = 2) -> Path:
    """A run with the given files of episodes; those of iterations have credit."""
    for name, episodes in files.items():
        path = folder / "episodes" / f"{name}.jsonl"
        write_episodes(path, episodes)
        if name.startswith("iteration-"):
            write_credit(path.with_suffix(".credit.npz"), episodes, sampled)
    (folder / "tokenizer").mkdir(parents=True)
    TOKENIZER.save(str(folder / "tokenizer" / "tokenizer.json"))
    config = {
        "algorithm": algorithm,
        "config": {"seed": 1, "output_dir": str(folder), "gamma": 0.9},
        "run": {"env": "x"},
    }
    (folder / "config.json").write_text(json.dumps(config))
    entries = [
        {"update": number, "iteration": float(number), "success": number / 20, "entropy": 1 / number, "loss": None}
        for number in range(1, len(files) + 1)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    return folder


def write_evaluation(folder: Path, episodes: list[Episode], *, model: str) -> Path:
    """An evaluation as `steppo-gym evaluate` leaves it, a try of each task."""
    settings = {"panel": "lamps-test", "policy": {"model": model}, "temperature": 0.0}
    write_episodes(folder / "episodes" / "lamps-test.jsonl", episodes)
    (folder / "config.json").write_text(json.dumps({"evaluation": settings}))
    (folder / "summary.json").write_text(json.dumps(results(settings, episodes, tries=1)))
    return folder


def write_credit(path: Path, episodes: list[Episode], sampled: int) -> None:
    """Credit in which every number says where it belongs: step n of line m has the advantage m + n / 100."""
    lines = [line for line, episode in enumerate(episodes) if episode.ended != "failed"]
    advantage = np.array([line + n / 100 for line in lines for n in range(episodes[line].num_steps)], np.float32)
    tokens = [sum(len(step.response_ids) for step in episodes[line].steps) for line in lines[:sampled]]
    columns = {name: np.arange(sum(tokens), dtype=np.float32) for name in ("advantage", "entropy", "log_prob_change")}
    steps = sum(episodes[line].num_steps for line in lines[:sampled])
    np.savez(
        path,
        # In every step all three but the place of its number.
        actions=np.frombuffer(json.dumps(["sit", "go", HOSTILE]).encode(), np.uint8),
        admissible=np.array([place for n in range(steps) for place in range(3) if place != n % 3], np.int32),
        admissible_counts=np.full(steps, 2, np.int32),
        lines=np.array(lines),
        steps=np.array([episodes[line].num_steps for line in lines], np.int64),
        sampled=np.array(lines[:sampled], np.int64),
        tokens=np.array(tokens, np.int64),
        advantage=advantage,
        value=advantage * 2,
        **{name: np.ones_like(advantage) for name in ("ratio", "ratio_min", "ratio_max")},
        **{f"token_{name}": column for name, column in columns.items()},
        token_ratio=np.full(sum(tokens), 0.5, np.float32),
    )


def write_audit(folder: Path, episodes: list[Episode], truth: list[dict]) -> Path:
    """An audit of given episodes, whose steps of `truth` were audited; `measured` makes the entries."""
    write_episodes(folder / "episodes.jsonl", episodes)
    (folder / "tokenizer").mkdir(parents=True)
    TOKENIZER.save(str(folder / "tokenizer" / "tokenizer.json"))
    (folder / "settings.json").write_text(
        json.dumps({"source": "runs/first", "env": "x", "iteration": None, "seed": 3})
    )
    rules = {
        name: {"sign": 0.8, "rank": 0.5, "cosine": 0.4, "dose": 1.0, "error": {"bias": 0.3, "variance": 0.1}}
        for name in truth[0]["credit"]
    }
    report = {"points": len(truth), "threshold": 0.1, "rho": 0.5, "rho_interval": [0.2, 0.8], "rules": rules}
    (folder / "report.json").write_text(json.dumps(report))
    (folder / "truth.jsonl").write_text("".join(json.dumps(record) + "\n" for record in truth))
    return folder


def measured(episode: int, place: int, advantage: tuple[float, float, float], *others: str, **more: object) -> dict:
    """What an audit found at a step: `advantage` and its interval of the taken response, the opposite of the others."""
    opposite = [-advantage[0], -advantage[2], -advantage[1]]
    tried = [
        {"response": "taken", "draws": 5, "value": 0.5 + advantage[0], "advantage": list(advantage)},
        *({"response": text, "draws": 3, "value": 0.5 - advantage[0], "advantage": opposite} for text in others),
    ]
    return {
        "episode": episode,
        "place": place,
        "value": 0.5,
        "continuations": 8,
        "verdict": "matters",
        "responses": tried,
        "credit": {
            "steppo": {"mean": -0.75, "std": 0.125, "batches": 9, "scaled": -0.25},
            "grpo": {"mean": 0.0, "std": 5.6e-17, "batches": 9, "scaled": 0.0},
        },
        **more,
    }
