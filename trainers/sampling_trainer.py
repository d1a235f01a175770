"""Where a trainer's responses come from besides its own model: servers, and older weights while it updates."""

from __future__ import annotations

import contextlib
import copy
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from steppo_gym.rollouts.policies import Policy
from steppo_gym.rollouts.pool import EnvFactory
from steppo_gym.rollouts.rollout import Assignment, Rollout
from steppo_gym.trainers.ahead import Ahead, VersionedPolicy, tasks_of
from steppo_gym.trainers.playing_trainer import PlayingTrainer
from steppo_gym.trainers.policy.model_limits import base_of
from steppo_gym.trainers.policy.sampling_check import check_gap
from steppo_gym.trainers.policy.servers import PolicyServers
from steppo_gym.trainers.step_data import assignments


class SamplingTrainer(PlayingTrainer):
    """The part of `StepTrainer` that chooses what is sampled from, and when."""

    spec: EnvFactory
    task_ids: tuple[str, ...]
    low_precision: bool
    """Whether the model computes in 16 bits."""
    _servers: PolicyServers | None = None
    _ahead: Ahead | None = None
    _older: Any = None
    """A copy of the policy that is sampled from while the policy is updated."""

    def set_up_sampling(self) -> None:
        """Find the servers, and get ready to play ahead."""
        args = self.args
        if self.sharded is not None and (args.policy_servers is not None or args.overlap_updates):
            raise ValueError(
                "policy_servers and overlap_updates need the whole policy in every process: leave out shard, or them."
            )
        if args.policy_servers is not None:
            if hasattr(self.accelerator.unwrap_model(self.model), "get_base_model"):
                raise ValueError(
                    "policy_servers load whole weights, and adapters are trained here: leave out use_peft."
                )
            folder, longest = Path(str(args.policy_servers_folder)), self.max_prompt_tokens
            self._servers = PolicyServers(
                [address.strip() for address in args.policy_servers.split(",")],
                folder=folder,
                model=args.policy_servers_model or str(folder),
                context_tokens=None if longest is None else longest + args.max_response_tokens,
                rank=self.accelerator.process_index,
                world=self.accelerator.num_processes,
                gather=self.gather,
            )
        if args.overlap_updates:
            self._ahead = Ahead()

    @property
    def samples_elsewhere(self) -> bool:
        """Whether responses come from other weights, or from another engine, than are trained."""
        return self.use_vllm or self._servers is not None or self._ahead is not None

    def check_sampling_gap(self, gap: float) -> None:
        """End a run whose first iteration, or any with servers, was sampled from another distribution than it trains.

        Raises:
            SamplingGapError: it is above the bound.
        """
        # Another engine has other kernels, and as a rule another precision.
        low = self.low_precision or self.samples_elsewhere
        check_gap(gap, low_precision=low, from_servers=self._servers is not None)

    @contextlib.contextmanager
    def sampling(self, temperature: float, seed: int) -> Iterator[Policy]:
        """The current policy, wherever it is sampled from."""
        if self._servers is None:
            with super().sampling(temperature, seed) as policy:
                yield policy if self._ahead is None else VersionedPolicy(policy, int(self.state.global_step))
            return
        if self._ahead is not None:
            # The servers have one version of the weights at a time.
            self._ahead.wait()
        self._push()
        with self._served(temperature, seed) as policy:
            yield policy

    def play(self, spec: EnvFactory, assignments: Sequence[Assignment], *, temperature: float, seed: int) -> Rollout:
        """As the base class does; in the environments of the rollout ahead only after it."""
        if self._ahead is not None and repr(spec) == repr(self.spec):
            self._ahead.wait()
        return super().play(spec, assignments, temperature=temperature, seed=seed)

    def _push(self) -> None:
        assert self._servers is not None
        model: Any = self.accelerator.unwrap_model(self.model)
        self._servers.push(model.save_pretrained, int(self.state.global_step))

    def _served(self, temperature: float, seed: int) -> contextlib.AbstractContextManager[Policy]:
        assert self._servers is not None
        model: Any = self.accelerator.unwrap_model(self.model)
        return self._servers.policy(
            num_slots=self.args.num_slots,
            max_tokens=self.args.max_response_tokens,
            stop_token_ids=self.codec.stop_token_ids,
            # Not the tokenizer's length: where embeddings are padded, a model may give one of those beyond it.
            vocab_size=len(model.get_input_embeddings().weight),
            temperature=temperature,
            seed=seed,
        )

    def play_iteration(self, number: int, task_ids: Sequence[str]) -> tuple[Rollout, int]:
        """The episodes of an iteration, and the seed they were played with.

        With `overlap_updates` they were played during the updates before, and those of the next iteration are begun;
        the first of a run, or of one that goes on from a checkpoint, are played now.

        Args:
            number: of the iteration, from 0.
            task_ids: what the data loader deals to this process, `num_generations` times each.
        """
        if self._ahead is None:
            return self._play_tasks(number, task_ids)
        started = time.perf_counter()
        taken = self._ahead.take(number)
        self._record({"overlap_wait_seconds": max(self.gather(time.perf_counter() - started))})
        own = taken or self._play_tasks(number, self._own_tasks(number))[0]
        if number + 1 < self.args.iterations:
            self._play_ahead(number + 1)
        return own, self._seed_of(number)

    def _play_tasks(self, number: int, task_ids: Sequence[str]) -> tuple[Rollout, int]:
        seed = self._seed_of(number)
        todo = assignments(task_ids, self.args.num_generations, seed)
        return self.play(self.spec, todo, temperature=self.temperature, seed=seed), seed

    def _seed_of(self, number: int) -> int:
        rank = self.accelerator.process_index
        return int(np.random.SeedSequence([self.args.seed, number, rank]).generate_state(1)[0])

    def _own_tasks(self, number: int) -> list[str]:
        """What this process plays in an iteration that the data loader has not come to."""
        count = self.args.episodes_per_iteration // self.args.num_generations
        tasks = tasks_of(self.task_ids, number, count, self.args.seed)
        own = tasks[self.accelerator.process_index :: self.accelerator.num_processes]
        return [task for task in own for _ in range(self.args.num_generations)]

    def _play_ahead(self, number: int) -> None:
        """Begin the rollout of an iteration with the weights of now."""
        assert self._ahead is not None
        seed = self._seed_of(number)
        todo = assignments(self._own_tasks(number), self.args.num_generations, seed)
        if self._servers is None:
            version, model = int(self.state.global_step), self._copy()
            policy: Any = contextlib.nullcontext(
                VersionedPolicy(self._policy(self.temperature, seed, model=model), version)
            )
        else:
            self._push()
            policy = self._served(self.temperature, seed)
        self._ahead.start(number, partial(self._play_with, policy, todo, self._ahead.watched(self.on_episode)))

    def _play_with(
        self, policy: contextlib.AbstractContextManager[Policy], todo: list[Assignment], on_episode: Any
    ) -> Rollout:
        with policy as entered:
            return self._collect(entered, self.spec, todo, on_episode)

    def _copy(self) -> Any:
        """The policy as it is now, which updates do not change."""
        model: Any = self.accelerator.unwrap_model(self.model)
        if self._older is None:
            self._older = copy.deepcopy(model).requires_grad_(False)
            # A forward that TRL or accelerate has put there, TRL below the adapters, holds on to what it was made for.
            for patched in (self._older, base_of(self._older)):
                vars(patched).pop("forward", None)
        else:
            self._older.load_state_dict(model.state_dict())
        return self._older

    def close(self) -> None:
        """Leave the rollout under way, and end the environments' workers."""
        if self._ahead is not None:
            self._ahead.close()
        super().close()
