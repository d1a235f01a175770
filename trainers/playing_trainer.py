"""How a trainer plays: with its own model or vLLM, in environments that stay, and on held-out tasks."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from steppo_gym.errors import SteppoGymError
from steppo_gym.rollouts.episode import Episode
from steppo_gym.rollouts.policies import Policy
from steppo_gym.rollouts.pool import EnvFactory, EnvPool
from steppo_gym.rollouts.rollout import Assignment, Rollout, collect, require_played
from steppo_gym.trainers.evaluation import EvaluationSet, evaluation_metrics
from steppo_gym.trainers.policy.chat import ChatCodec
from steppo_gym.trainers.policy.generation import BackendPolicy, ModelPolicy
from steppo_gym.trainers.policy.sampling_check import PROBE_TOKENS
from steppo_gym.trainers.recorded_trainer import RecordedTrainer


class PlayingTrainer(RecordedTrainer):
    """The part of `StepTrainer` that plays; step_trainer.py lists what it overrides."""

    codec: ChatCodec
    max_prompt_tokens: int | None
    pad_token_id: int
    evaluation_sets: tuple[EvaluationSet, ...]
    on_episode: Callable[[Episode], None] | None
    _pools: dict[str, EnvPool]
    """By environment."""

    def play(self, spec: EnvFactory, assignments: Sequence[Assignment], *, temperature: float, seed: int) -> Rollout:
        """Play assignments with the current policy in this process's environments.

        Args:
            spec: the environment.
            assignments: what to play.
            temperature: 0 for greedy.
            seed: of the sampling.
        """
        with self.sampling(temperature, seed) as policy, self.phases.phase("generation"):
            rollout = self._collect(policy, spec, assignments, self.on_episode)
        stats, prefill = rollout.stats, policy.prefill_seconds if isinstance(policy, ModelPolicy) else 0.0
        waited, generated = stats.environment_wait_seconds, stats.generation_seconds
        parts = {"prefill": prefill, "environments": waited, "records": stats.seconds - generated - waited}
        for name, seconds in parts.items():
            self.phases.move("generation", name, seconds)
        return rollout

    def _collect(
        self,
        policy: Policy,
        spec: EnvFactory,
        assignments: Sequence[Assignment],
        on_episode: Callable[[Episode], None] | None,
    ) -> Rollout:
        return collect(
            policy,
            self._pool(spec),
            self.codec,
            assignments,
            max_prompt_tokens=self.max_prompt_tokens,
            overlap=self._overlap(),
            streaming=self.args.stream_responses or None,
            on_episode=on_episode,
        )

    def require_played(self, episodes: Sequence[Episode]) -> None:
        """Stop, in all processes alike, where none has played anything; one alone may have nothing but failures.

        Args:
            episodes: of this process; all processes call this together.

        Raises:
            AllEpisodesFailedError: there is nothing to train on.
        """
        one_played = [episode for episode in episodes if episode.ended != "failed"][:1]
        require_played([episode for part in self.gather(one_played or list(episodes)) for episode in part])

    def _overlap(self) -> bool | None:
        """Whether environments step beside generation: as it is set, or as this run has found out and logged."""
        if self.args.overlap_environments is not None:
            return self.args.overlap_environments
        if self.use_vllm:
            # What it samples depends on the order of the calls, so that must not depend on time.
            return True
        found = [entry["environments_overlap"] for entry in self.state.log_history if "environments_overlap" in entry]
        return None if not found or found[-1] == 0.5 else found[-1] > 0.5

    @contextlib.contextmanager
    def sampling(self, temperature: float, seed: int) -> Iterator[Policy]:
        """The current policy, ready to be sampled from."""
        with self._whole_policy() as whole:
            yield self._policy(temperature, seed, model=whole)

    def _whole_policy(self) -> AbstractContextManager[Any]:
        """The policy with all of its weights in this process, for as long as it is sampled from."""
        if self.sharded is None:
            return nullcontext(self.accelerator.unwrap_model(self.model))
        return self.sharded.whole_policy()

    def _policy(self, temperature: float, seed: int, *, model: Any) -> Policy:
        if self.use_vllm:
            return BackendPolicy(
                lambda prompts: self._generate_with_trl(prompts, temperature), self.codec.stop_token_ids
            )
        return self._own_policy(model, temperature, seed, num_slots=self.args.num_slots)

    def _probe(self, model: Any) -> ModelPolicy:
        """For `check_sampling`."""
        return self._own_policy(model, self.temperature, self.args.seed, num_slots=3, most_tokens=PROBE_TOKENS)

    def _own_policy(
        self, model: Any, temperature: float, seed: int, *, num_slots: int, most_tokens: int | None = None
    ) -> ModelPolicy:
        longest = self.args.max_response_tokens
        return ModelPolicy(
            model,
            num_slots=num_slots,
            stop_token_ids=self.codec.stop_token_ids,
            pad_token_id=self.pad_token_id,
            max_response_tokens=min(longest, most_tokens or longest),
            temperature=temperature,
            seed=seed,
            autocast=lambda: self.accelerator.autocast(),
        )

    def _generate_with_trl(
        self, prompts: list[list[int]], temperature: float
    ) -> tuple[list[list[int]], list[list[float]] | None]:
        engine = self.vllm_generation
        usual = engine.temperature
        engine.temperature = temperature
        try:
            return self._generate_single_turn(prompts, None, {}, 1)
        finally:
            engine.temperature = usual

    def _pool(self, spec: EnvFactory) -> EnvPool:
        key = repr(spec)
        if key not in self._pools:
            self._pools[key] = EnvPool(
                spec,
                num_slots=self.args.num_slots,
                num_workers=self.args.num_env_workers,
                step_timeout=self.args.env_step_timeout,
                workers=self.args.env_workers,
            )
        return self._pools[key]

    def close(self) -> None:
        """End the environments' worker processes; they start again when they are needed."""
        for pool in self._pools.values():
            pool.close()
        self._pools = {}

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: list[str] | None = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Play the evaluation sets greedily and log `<prefix>_<set>_<metric>`."""
        del eval_dataset, ignore_keys
        metrics: dict[str, float] = {}
        for tasks in self.evaluation_sets:
            scores = evaluation_metrics(self.play_evaluation_set(tasks, temperature=0.0))
            metrics |= {f"{metric_key_prefix}_{tasks.name}_{name}": value for name, value in scores.items()}
        self._check_best_metric(metrics)
        training = self.model.training
        self.model.eval()
        self.log(dict(metrics))
        self.model.train(training)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _check_best_metric(self, metrics: Mapping[str, float]) -> None:
        """Raise a SteppoGymError if there is no such metric: the loop would, with the iterations since a checkpoint."""
        wanted = self.args.metric_for_best_model
        if wanted is not None and f"eval_{wanted.removeprefix('eval_')}" not in metrics:
            raise SteppoGymError(f"metric_for_best_model must be one of {', '.join(metrics)}, got {wanted}.")

    def play_evaluation_set(self, tasks: EvaluationSet, *, temperature: float, seed: int = 0) -> list[Episode]:
        """Play all tasks of a set, shared out over the processes; every process gets all episodes, in order.

        Raises:
            AllEpisodesFailedError: there is nothing to score.
        """
        world, rank = self.accelerator.num_processes, self.accelerator.process_index
        own = [Assignment(task, seed=position) for position, task in enumerate(tasks.task_ids)][rank::world]
        with self.phases.phase("evaluation", whole=True):
            # Draws are numbered by process: equal seeds would give different tasks the same.
            parts = self.gather(self.play(tasks.spec, own, temperature=temperature, seed=seed + rank).episodes)
        episodes = [parts[position % world][position // world] for position in range(len(tasks.task_ids))]
        require_played(episodes)
        return episodes
