"""The main job, the same for every algorithm: policy, evaluation before, training, evaluation after, report."""

from __future__ import annotations

import json
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from transformers import PreTrainedTokenizerBase, TrainerCallback, TrainingArguments
from trl.trainer.utils import get_peft_config

from steppo_gym.command_line import ending_when_unread
from steppo_gym.credit.records import CreditRule
from steppo_gym.errors import SteppoGymError
from steppo_gym.rollouts.episode import Episode, write_episodes
from steppo_gym.storage.json_lines import write_whole
from steppo_gym.trainers.checkpoints import update_of
from steppo_gym.trainers.collapse import CollapseWatch
from steppo_gym.trainers.evaluation import EvaluationSet, evaluation_metrics
from steppo_gym.trainers.reading import in_one_line
from steppo_gym.trainers.results.card import write_card
from steppo_gym.trainers.run.allocator import keep_freed_memory
from steppo_gym.trainers.run.arguments import parse_arguments, script_name
from steppo_gym.trainers.run.console import Console, quiet_libraries, settle_callbacks
from steppo_gym.trainers.run.environments import Environments, open_environments
from steppo_gym.trainers.run.interruption import Interrupted, Interruption, ending_in_one_line
from steppo_gym.trainers.run.report import (
    BEFORE_FILE,
    METRICS_FILE,
    RunRecorder,
    draw_learning_curve,
    read_metrics,
    tokens_written,
    was_evaluated,
    write_summary,
)
from steppo_gym.trainers.run.run_folder import command_to_go_on, named_folder, run_folder
from steppo_gym.trainers.run.samples import report_samples
from steppo_gym.trainers.run.settings import RunSettings
from steppo_gym.trainers.run.starts import (
    files_mark,
    require_tokenizer_of,
    start_of,
    starting_policy,
    task_ids_of,
)
from steppo_gym.trainers.step_config import StepConfig
from steppo_gym.trainers.step_trainer import StepTrainer

Scores = dict[str, dict[str, dict[str, float]]]
"""By mode ("greedy", "sampled"), by test split, by metric."""


def launch(rule: type[CreditRule], argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Run the job a command line describes and return its summary.

    Args:
        rule: the algorithm; its fields are flags.
        argv: arguments; those of the process by default.

    Raises:
        SystemExit: 1 after a failure, 2 after a wrong command line, 130, 143 or 129 after Ctrl-C, SIGTERM or the end of
            the terminal.
    """
    started = time.perf_counter()
    given = list(sys.argv[1:] if argv is None else argv)
    with ending_when_unread():
        settings = parse_arguments(rule, given)
    interruption = Interruption(settings.config.updates_in_iteration)
    quiet_libraries()
    if not torch.cuda.is_available():
        keep_freed_memory()
    with ending_in_one_line(interruption):
        environments = open_environments(settings)
        marks = {"tasks (SHA-256)": environments.mark}
        if settings.model.model_name_or_path is not None:
            marks["files of the model (SHA-256)"] = files_mark(settings.model.model_name_or_path)
        settings = replace(settings, start=start_of(settings), marks=marks)
        first, _ = named_folder(settings)
        with run_folder(settings) as checkpoint:
            interruption.again = command_to_go_on(settings, given, first)
            return _run(settings, environments, interruption, checkpoint, given, started)


def _run(
    settings: RunSettings,
    environments: Environments,
    interruption: Interruption,
    checkpoint: Path | None,
    given: Sequence[str],
    started: float,
) -> dict[str, Any]:
    run, config, preset = settings.run, settings.config, settings.preset
    folder, title = Path(str(config.output_dir)), settings.rule.title()
    console = Console(
        config.iterations,
        config.episodes_per_iteration // config.world_size,
        config.updates_in_iteration,
        visible=config.process_index == 0,
        bars=not config.disable_tqdm,
    )
    console.say(f"{title} on {preset.env_id} {run.description()}, seed {config.seed}, into {folder}")
    for remark in environments.remarks:
        console.say(remark)
    if settings.model.use_peft and config.learning_rate == StepConfig.learning_rate:
        console.say(
            f"learning rate {config.learning_rate:g}, as for all weights; adapters mostly learn at 1e-5 or more "
            "(--learning_rate)"
        )
    try:
        trainer = _build_trainer(settings, environments, console, interruption, checkpoint)
    except (SteppoGymError, OSError):
        raise
    except Exception as error:
        # A model, a tokenizer or a task that cannot be trained with these settings; whoever reads them raises anything.
        sys.exit(f"{script_name(title)}.py: {in_one_line(error)}")
    if config.process_index == 0:
        # Whoever looks at the episodes while the run goes on needs it; a model is saved only later.
        trainer.processing_class.save_pretrained(folder / "tokenizer")  # type: ignore[union-attr]
    try:
        tests = environments.tests
        before, after = _train_and_test(trainer, tests, console, checkpoint, interruption)
    finally:
        console.finish()
        trainer.close()
    summary = {
        "algorithm": title,
        "env": run.env,
        "environment": preset.env_id,
        "task": run.description(),
        "seed": config.seed,
        **_summarize(before, after, tests),
        "iterations": config.iterations,
        "episodes": config.iterations * config.episodes_per_iteration,
        "updates": config.max_steps,
        "tokens": tokens_written(read_metrics(folder / METRICS_FILE)),
        "wall_seconds": round(time.perf_counter() - started, 1),
        "seconds_by_phase": {name: round(seconds, 2) for name, seconds in trainer.phases.seconds.items()},
        "resumed": checkpoint is not None,
        "command": shlex.join([Path(sys.argv[0]).name, *given]),
    }
    if config.process_index == 0:
        base = settings.model.model_name_or_path
        write_card(folder / "final", summary, base=base, env_kwargs=settings.env_kwargs)
        draw_learning_curve(folder)
        write_summary(folder, summary)
    if tests:
        console.say(
            f"greedy success on {summary['evaluation_tasks']} held-out tasks: "
            f"{100 * summary['success_before']:.1f} % before, {100 * summary['success_after']:.1f} % after"
        )
    console.say(f"time: {trainer.phases.line()}")
    console.say(f"{summary['wall_seconds']:.0f} s; see {folder}/learning_curve.png, or steppo-gym view {folder}")
    return summary


def _build_trainer(
    settings: RunSettings,
    environments: Environments,
    console: Console,
    interruption: Interruption,
    checkpoint: Path | None,
) -> StepTrainer:
    """The trainer with its policy, which may have to be warm-started first."""
    config, spec = settings.config, settings.train_spec()
    model, tokenizer = starting_policy(settings)
    if checkpoint is not None and settings.model.model_name_or_path is None:
        require_tokenizer_of(checkpoint, tokenizer)
    due = _EvaluationThatIsDue()

    def on_episode(episode: Episode) -> None:
        console.on_episode(episode)
        interruption.on_episode(episode)

    trainer = StepTrainer(
        model,
        config,
        spec=spec,
        task_ids=task_ids_of(spec),
        rule=settings.rule,
        critic_config=settings.critic,
        processing_class=tokenizer,
        evaluation_sets=environments.watched,
        on_episode=on_episode,
        peft_config=get_peft_config(settings.model),
        callbacks=[
            console,
            CollapseWatch(console.say),
            RunRecorder(Path(str(config.output_dir)), config.updates_in_iteration),
            due,
            interruption,
        ],
    )
    # What only turns out when a prompt or the optimizer is made should do so before anything is played.
    trainer.codec.first_prompt(environments.description.system_prompt, environments.description.tools, "-")
    trainer.create_optimizer()
    # Training makes another one, of its own optimizer.
    trainer.create_scheduler(config.max_steps, torch.optim.SGD([torch.zeros(1)], lr=1.0))
    due.trainer, interruption.gather = trainer, trainer.gather
    settle_callbacks(trainer, Path(str(config.output_dir)))
    report_samples(trainer, cast(PreTrainedTokenizerBase, trainer.processing_class))
    return trainer


def _train_and_test(
    trainer: StepTrainer,
    tests: Sequence[EvaluationSet],
    console: Console,
    checkpoint: Path | None,
    interruption: Interruption,
) -> tuple[Scores, Scores]:
    """Scores on the test splits before and after training; those before are kept in the folder for a resumed run."""
    folder = Path(str(trainer.args.output_dir))
    if checkpoint is None:
        before = _play_tests(trainer, tests, console, folder, "before")
        if trainer.accelerator.is_main_process:
            write_whole(folder / BEFORE_FILE, json.dumps(before))
        trainer.evaluate()
    else:
        before = json.loads((folder / BEFORE_FILE).read_text())
        console.say(f"resuming from {checkpoint}")
    with interruption.training():
        _train(trainer, checkpoint, interruption)
    trainer.save_model(str(folder / "final"))
    return before, _play_tests(trainer, tests, console, folder, "after")


def _train(trainer: StepTrainer, checkpoint: Path | None, interruption: Interruption) -> None:
    """Train to the end.

    Raises:
        Interrupted: a signal came; what was done is in a checkpoint.
    """
    args, folder = trainer.args, Path(str(trainer.args.output_dir))
    try:
        if checkpoint is not None and update_of(checkpoint) >= args.max_steps:
            # All updates are made. Transformers would make one more.
            trainer.load_trained(checkpoint)
            _evaluate_if_due(trainer, folder)
        else:
            trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    except Interrupted:
        trainer.save_now()
        raise
    if interruption.received:
        raise Interrupted(interruption.received)


def _evaluate_if_due(trainer: StepTrainer, folder: Path) -> None:
    """The evaluation of the checkpoint's iteration, if the run before ended in it."""
    update, every = trainer.state.global_step, trainer.args.eval_steps
    if trainer.args.evaluate_every and update and update % int(every or 1) == 0 and not was_evaluated(folder, update):
        trainer.evaluate()


class _EvaluationThatIsDue(TrainerCallback):
    """Makes up for the evaluation that a run was interrupted in, once the checkpoint is loaded."""

    def __init__(self) -> None:
        self.trainer: StepTrainer | None = None

    def on_train_begin(self, args: TrainingArguments, *_: Any, **__: Any) -> None:
        if self.trainer is not None:
            _evaluate_if_due(self.trainer, Path(str(args.output_dir)))


def _summarize(before: Scores, after: Scores, tests: Sequence[EvaluationSet]) -> dict[str, Any]:
    return {
        "success_before": _pooled(before["greedy"], tests),
        "success_after": _pooled(after["greedy"], tests),
        "sampled_success_before": _pooled(before["sampled"], tests),
        "sampled_success_after": _pooled(after["sampled"], tests),
        "evaluation_tasks": sum(len(test.task_ids) for test in tests),
        "before": before,
        "after": after,
    }


def _play_tests(
    trainer: StepTrainer, tests: Sequence[EvaluationSet], console: Console, folder: Path, when: str
) -> Scores:
    """Play the test splits greedily and sampled, and keep the episodes."""
    scores: Scores = {}
    for mode, temperature in (("greedy", 0.0), ("sampled", 1.0)):
        scores[mode] = {}
        for test in tests:
            console.count(len(test.task_ids), f"{test.name}, {mode}, {when}")
            episodes = trainer.play_evaluation_set(test, temperature=temperature)
            console.finish()
            found = scores[mode][test.name] = evaluation_metrics(episodes)
            if trainer.accelerator.is_main_process:
                write_episodes(folder / "episodes" / f"{when}-{test.name}-{mode}.jsonl", episodes)
            console.say(f"{when}: {test.name}, {mode}: success {100 * found['success']:.0f} %")
    return scores


def _pooled(scores: dict[str, dict[str, float]], tests: Sequence[EvaluationSet]) -> float | None:
    """Success over the tasks of all test splits, None if none were played."""
    total = sum(len(test.task_ids) for test in tests)
    return None if not tests else sum(scores[test.name]["success"] * len(test.task_ids) for test in tests) / total
