"""`steppo-gym audit`: how much the steps of a policy's episodes were worth, and which rules of credit see it.

steppo-gym audit runs/key_door-steppo-seed0
steppo-gym audit runs/key_door-steppo-seed0 --iteration 9
steppo-gym audit expert:0.3 --env key_door --env_args routine_steps=6
steppo-gym audit runs/key_door-stepbaseline-seed0 --rule step_baseline:StepBaseline
"""

from __future__ import annotations

import argparse
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import islice
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
from steppo_gym.audit.truth import truth_records, write_truth
from steppo_gym.credit.records import CreditRule
from steppo_gym.env_arguments import env_argument
from steppo_gym.errors import SteppoGymError
from steppo_gym.registration import find_modules_here
from steppo_gym.rollouts.pool import EnvFactory, EnvPool
from steppo_gym.trainers.auditing.own_rules import own_rules
from steppo_gym.trainers.auditing.source import (
    Source,
    open_source,
    played_by,
    trained_rule,
    training_keywords,
    training_of,
)
from steppo_gym.trainers.rules import ALGORITHMS
from steppo_gym.trainers.run.presets import preset_of, task_name
from steppo_gym.trainers.setting import check_ranges

LEAST = {
    **dict.fromkeys(("tasks", "episodes_per_task", "points", "group_size", "groups", "batches", "slots"), 1),
    **dict.fromkeys(("alternatives", "workers", "seed", "temperature", "threshold"), 0),
    "continuations": 2,
    "max_response_tokens": 1,
}
"""The smallest values of its numbers."""


def audit(options: argparse.Namespace) -> int:
    """Run the command; returns its exit status.

    Raises:
        ValueError: a setting that cannot work, said in one line.
    """
    options.env = options.env and task_name(options.env)
    rules = ALGORITHMS | own_rules(options.rule)
    trained = training_of(Path(options.source), options.env)
    task = options.env or trained.get("run", {}).get("env")
    if task is None:
        found = "not the folder of a run, which would say it" if Path(options.source).exists() else "no folder here"
        raise ValueError(f"Give --env, or a run's folder: {options.source} is {found}.")
    find_modules_here(task)
    recorded = None
    folder = Path(options.out or _default_folder(task, options))
    if options.iteration is not None:
        checkpoint, recorded = played_by(Path(options.source), options.iteration, trained)
        options.source = str(checkpoint)
    _fill(options, trained, recorded is not None)
    check_ranges(options, LEAST)
    most = options.episodes_per_task if recorded is None else trained["config"]["num_generations"]
    if options.group_size > most:
        raise ValueError(
            f"group_size is at most {most}, the episodes of a task that there are, got {options.group_size}."
        )
    preset = preset_of(task)
    given = {**training_keywords(trained), **dict(map(env_argument, options.env_args))}
    spec = preset.spec(options.split or preset.train_split, given)
    kind = trained_rule(trained, rules)
    found, source = _play(options, spec, trained, kind, folder, recorded)
    (folder / "tokenizer").mkdir(exist_ok=True)
    (folder / "tokenizer" / "tokenizer.json").write_text(source.tokenizer, encoding="utf-8")
    scored = {name: rule(**trained["rule"]) if rule is kind else rule() for name, rule in rules.items()}
    unknown = {} if kind or not trained else {trained["algorithm"]: "it is a rule of your own, to be named as --rule"}
    return _report(found, options, folder, source, scored, unknown)


def _play(
    options: argparse.Namespace,
    spec: EnvFactory,
    trained: Mapping[str, Any],
    rule: type[CreditRule] | None,
    folder: Path,
    recorded: Path | None,
) -> tuple[Found, Source]:
    """Everything that is played, or was before."""
    env = spec.make()
    task_ids = list(islice(env.task_ids, options.tasks))
    plan = Plan(options.continuations, options.alternatives, options.gamma)
    source = open_source(options, trained, rule, env.tools)
    settings = {
        "source": options.source,
        "model_hash": source.model_hash,
        "iteration": options.iteration,
        "env": spec.env_id,
        "env_kwargs": dict(spec.kwargs),
        "temperature": options.temperature,
        "max_response_tokens": options.max_response_tokens,
    }
    with (
        EnvPool(spec, num_slots=options.slots, num_workers=options.workers) as pool,
        # Points come in bunches, after episodes that are many times as many: the second bar shows that it goes on.
        tqdm(total=options.points, unit="point", disable=True if options.quiet else None) as bar,
        tqdm(unit="episode", disable=True if options.quiet else None) as played,
    ):
        found = run_audit(
            Table(source.policy, pool, source.codec, env, source.max_prompt_tokens, lambda _: played.update()),
            task_ids,
            plan,
            folder,
            episodes_per_task=options.episodes_per_task,
            points=options.points,
            seed=options.seed,
            settings=settings,
            recorded=recorded,
            on_point=lambda point: bar.update(),
        )
    env.close()
    return found, source


def _fill(options: argparse.Namespace, trained: Mapping[str, Any], recorded: bool) -> None:
    """Defaults that depend on the run, and on whether episodes are played or those of an iteration taken."""
    if recorded:
        for name in ("tasks", "episodes_per_task"):
            if getattr(options, name) is not None:
                raise ValueError(f"--{name} is about episodes that are played; --iteration takes those of the run.")
    size = trained["config"]["num_generations"] if recorded else 8
    groups = trained["config"]["episodes_per_iteration"] // size if recorded else 8
    # Its critic, and the episodes of an iteration, are of the distribution that was trained.
    temperature = trained["config"]["temperature"] if trained else 1.0
    defaults = {
        "tasks": 8, "episodes_per_task": 16, "group_size": size, "groups": groups, "temperature": temperature,
    }  # fmt: skip
    for name, value in defaults.items():
        if getattr(options, name) is None:
            setattr(options, name, value)


def _report(
    found: Found,
    options: argparse.Namespace,
    folder: Path,
    source: Source,
    scored: Mapping[str, CreditRule],
    unknown: Mapping[str, str],
) -> int:
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
    rules, samples, skipped = _score_rules(points, batches, found.reach, options, source, scored)
    skipped |= unknown
    seen = decisions(points, options.threshold, reach=found.reach)
    text = text_report(seen, rules, skipped)
    (folder / "report.md").write_text(text, encoding="utf-8")
    record = {**seen, "rules": {name: asdict(scores) for name, scores in rules.items()}, "left_out": skipped}
    (folder / "report.json").write_text(json.dumps(_without_nan(record), indent=1), encoding="utf-8")
    scales = {name: scores.error.scale for name, scores in rules.items()}
    write_truth(folder, truth_records(points, samples, scales, options.threshold, reach=found.reach))
    draw_figure(points, samples, folder / "report.png", found.reach)
    print(text)
    print(f"See {folder}/report.png, and each step beside its truth with: steppo-gym view {folder}")
    return 0


def _score_rules(
    points: Sequence[AuditedPoint],
    batches: Sequence[Batch],
    reach: float,
    options: argparse.Namespace,
    source: Source,
    scored: Mapping[str, CreditRule],
) -> tuple[dict[str, Scores], dict[str, Any], dict[str, str]]:
    """Scores by rule, samples by rule, and why the others are left out."""
    truth = np.array([point.advantage(reach=reach).estimate for point in points])
    matters = [point.verdict(options.threshold, reach=reach) == "matters" for point in points]
    critic, end_token = source.critic, source.codec.encode_response("")[-1]
    scores: dict[str, Scores] = {}
    samples: dict[str, Any] = {}
    skipped: dict[str, str] = {}
    for name, rule in scored.items():
        if rule.critic is not None and (critic is None or critic.unit != rule.critic):
            skipped[name] = f"it reads a critic of {rule.critic}s, and none was kept with the policy."
            continue
        if type(rule).branches is not CreditRule.branches:
            skipped[name] = "it plays branches of its own."
            continue
        if rule.needs_groups and options.group_size < 2:
            skipped[name] = "it compares the episodes of a group, and groups have one here."
            continue
        try:
            steps, credit = sampled_credit(rule, batches, critic, end_token=end_token)
        except (ValueError, SteppoGymError) as error:
            skipped[name] = str(error)
            continue
        samples[name] = (steps, credit)
        scores[name] = score(steps, credit, truth, matters)
    return scores, samples, skipped


def _is_usable(point: AuditedPoint) -> bool:
    """Whether the taken response can be compared: enough of its continuations were played."""
    return any(a is not None and b is not None for a, b in zip(point.arms[0].returns, point.free, strict=True))


def _without_nan(record: Any) -> Any:
    """The same with null for every number that is none, which JSON has no word for."""
    if isinstance(record, dict):
        return {name: _without_nan(value) for name, value in record.items()}
    if isinstance(record, list):
        return [_without_nan(value) for value in record]
    return None if isinstance(record, float) and not math.isfinite(record) else record


def _default_folder(task: str, options: argparse.Namespace) -> str:
    path = Path(options.source)
    # "final" and "checkpoint-32" are names that every run has.
    parts = list(path.parts[-2 if path.name == "final" or path.name.startswith("checkpoint-") else -1 :])
    name = "-".join([*parts, *([f"iteration-{options.iteration}"] if options.iteration else [])])
    named = name if name.startswith(task) else f"{task}-{name}"
    return f"audits/{re.sub(r'[^A-Za-z0-9_.-]', '-', named)}"
