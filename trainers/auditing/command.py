"""`steppo-gym audit`: how much the steps of a policy's episodes were worth, and which rules of credit see it.

steppo-gym audit runs/key_door-steppo-seed0 --env key_door
steppo-gym audit expert:0.3 --env key_door --env_args routine_steps=6
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from steppo_gym.audit.continuations import Plan, Table
from steppo_gym.audit.points import AuditedPoint
from steppo_gym.audit.report import decisions, draw_figure, text_report
from steppo_gym.audit.resampling import Batch, resampled_batches, sampled_credit
from steppo_gym.audit.scores import Scores, score
from steppo_gym.audit.study import Found, run_audit
from steppo_gym.env_arguments import env_argument
from steppo_gym.registration import find_modules_here
from steppo_gym.rollouts.pool import EnvPool
from steppo_gym.trainers.auditing.critic import TrainedCritic
from steppo_gym.trainers.auditing.source import open_policy, training_keywords, training_of
from steppo_gym.trainers.rules import ALGORITHMS
from steppo_gym.trainers.run.presets import preset_of


def audit(options: argparse.Namespace) -> int:
    """Run the command.

    Args:
        options: as `steppo_gym.cli` reads them.

    Returns:
        Exit status.

    Raises:
        ValueError: a setting that cannot work, said in one line.
    """
    find_modules_here(options.env)
    preset = preset_of(options.env)
    trained = training_of(Path(options.source), options.env)
    given = {**training_keywords(trained, preset), **dict(map(env_argument, options.env_args))}
    spec = preset.spec(options.split or preset.train_split, given)
    env = spec.make()
    task_ids = [env.task_ids[i] for i in range(min(options.tasks, len(env.task_ids)))]
    plan = Plan(options.continuations, options.alternatives, options.gamma)
    policy, codec, limit, critic = open_policy(options, trained, env.action_format)
    folder = Path(options.output or f"audits/{options.env.replace('/', '-').replace(':', '-')}-{_name(options.source)}")
    settings = {
        "source": options.source,
        "env": spec.env_id,
        "env_kwargs": dict(spec.kwargs),
        "temperature": options.temperature,
        "max_response_tokens": options.max_response_tokens,
    }
    with (
        EnvPool(spec, num_slots=options.slots, num_workers=options.workers) as pool,
        tqdm(total=options.points, unit="point", disable=options.quiet) as bar,
    ):
        found = run_audit(
            Table(policy, pool, codec, env, limit),
            task_ids,
            plan,
            folder,
            episodes_per_task=options.episodes_per_task,
            points=options.points,
            seed=options.seed,
            settings=settings,
            on_point=lambda point: bar.update(),
        )
    env.close()
    return _report(found, options, folder, critic)


def _report(found: Found, options: argparse.Namespace, folder: Path, critic: TrainedCritic | None) -> int:
    usable = [i for i, point in enumerate(found.points) if _is_usable(point)]
    points = [found.points[i] for i in usable]
    batches = list(
        resampled_batches(
            found.episodes,
            points,
            [found.continuations[i] for i in usable],
            group_size=options.group_size,
            groups=options.groups,
            number=options.batches,
            seed=options.seed,
        )
    )
    rules, samples, skipped = _score_rules(points, batches, found.reach, options.threshold, critic)
    seen = decisions(points, options.threshold, reach=found.reach)
    text = text_report(seen, rules, skipped)
    (folder / "report.md").write_text(text, encoding="utf-8")
    record = {**seen, "rules": {name: asdict(scores) for name, scores in rules.items()}, "left_out": skipped}
    (folder / "report.json").write_text(json.dumps(record, indent=1), encoding="utf-8")
    draw_figure(points, samples, folder / "report.png", found.reach)
    print(text)
    print(f"See {folder}/report.png.")
    return 0


def _score_rules(
    points: Sequence[AuditedPoint],
    batches: Sequence[Batch],
    reach: float,
    threshold: float,
    critic: TrainedCritic | None,
) -> tuple[dict[str, Scores], dict[str, Any], dict[str, str]]:
    """Scores by rule, samples by rule, and why the others are left out."""
    truth = np.array([point.advantage(reach=reach).estimate for point in points])
    matters = [point.verdict(threshold, reach=reach) == "matters" for point in points]
    scores: dict[str, Scores] = {}
    samples: dict[str, Any] = {}
    skipped: dict[str, str] = {}
    for name, kind in ALGORITHMS.items():
        rule = kind()
        if rule.critic is not None and (critic is None or critic.unit != rule.critic):
            skipped[name] = f"it reads a critic of {rule.critic}s, and the source has none."
            continue
        if kind.branches.__qualname__ != "CreditRule.branches":
            skipped[name] = "it plays branches of its own."
            continue
        try:
            steps, credit = sampled_credit(rule, batches, critic)
        except ValueError as error:
            skipped[name] = str(error)
            continue
        samples[name] = (steps, credit)
        scores[name] = score(steps, credit, truth, matters)
    return scores, samples, skipped


def _is_usable(point: AuditedPoint) -> bool:
    """Whether the taken response can be compared: enough of its continuations were played."""
    return any(a is not None and b is not None for a, b in zip(point.arms[0].returns, point.free, strict=True))


def _name(source: str) -> str:
    return source.strip("/").replace("/", "-").replace(":", "-")
