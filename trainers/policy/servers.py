"""Completions servers as the policy of one process: which are its own, and that they have the weights of the trainer.

Every process asks its own servers for its own requests. Nothing is gathered or dealt out, so processes may ask for
different numbers of responses at different times. Weights are written once, by the first process, to the folder that
the servers were started from, and loaded from there (`steppo_gym.rollouts.served.weights`).
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from steppo_gym.errors import InfrastructureError, SteppoGymError
from steppo_gym.rollouts.policies import StreamingPolicy
from steppo_gym.rollouts.served.context_length import context_length
from steppo_gym.rollouts.served.server_group import ServerGroup
from steppo_gym.rollouts.served.weights import load_weights, write_weights
from steppo_gym.rollouts.server_policy import ServerPolicy

Gather = Callable[[Any], list[Any]]
"""From one object of each process to those of all, in the order of the ranks; all processes wait for each other."""


def share(addresses: Sequence[str], rank: int, world: int) -> tuple[str, ...]:
    """The servers of a process: every world-th of them, or one with others where there are fewer than processes."""
    return tuple(addresses[rank::world]) or (addresses[rank % len(addresses)],)


class PolicyServers:
    """The servers of one process, with the weights that were pushed last.

    Args:
        addresses: of the servers of all processes.
        folder: that they were started from.
        model: their name of the model.
        context_tokens: of the longest prompt with the longest response, None if that is not known.
        rank: of this process.
        world: number of processes.
        gather: see `Gather`.
    """

    def __init__(
        self,
        addresses: Sequence[str],
        *,
        folder: Path,
        model: str,
        context_tokens: int | None,
        rank: int,
        world: int,
        gather: Gather,
    ) -> None:
        self._addresses, self._folder, self._model, self._gather = tuple(addresses), folder, model, gather
        self._context_tokens, self._rank, self._world = context_tokens, rank, world
        self._loaded: frozenset[str] = frozenset()
        self.version: int | None = None
        """Of the weights that the servers have, None before the first were pushed."""

    def push(self, save: Callable[[Path], Any], version: int) -> None:
        """Give the servers new weights, unless they have this version. To be called by all processes.

        A server that cannot take them is not asked until it can.

        Args:
            save: writes the weights into a folder; called in the first process alone.
            version: of the weights.

        Raises:
            InfrastructureError: none of a process's servers can take them.
            SteppoGymError: a server says that its contexts are shorter than those of the run; it would fail long
                episodes alone.
        """
        if version == self.version:
            return
        fault = None
        if self._rank == 0:
            try:
                write_weights(self._folder, save, version)
            except (OSError, SafetensorError) as error:
                fault = f"The weights could not be written to {self._folder}: {error}."
        # The others must know before they wait for servers, which load what was written.
        fault = next(filter(None, self._gather(fault)), None)
        if fault is not None:
            raise InfrastructureError("model", fault)
        loaded = {address for address in self._addresses[self._rank :: self._world] if _takes(address)}
        everywhere = self._gather((loaded, [fault for address in sorted(loaded) for fault in self._too_short(address)]))
        for fault in (fault for _, faults in everywhere for fault in faults):
            raise SteppoGymError(fault)
        self._loaded, self.version = frozenset().union(*(part for part, _ in everywhere)), version
        lost = [rank for rank in range(self._world) if not self._of(rank)]
        if lost:
            raise InfrastructureError(
                "model", f"No server of process {lost[0]} takes new weights; standard error has the reasons."
            )

    def _too_short(self, address: str) -> list[str]:
        """What is wrong with the length of a server's contexts, nothing if it does not say how long they may be."""
        length = None if self._context_tokens is None else context_length(address, self._model)
        if self._context_tokens is None or length is None or length >= self._context_tokens:
            return []
        return [
            f"The server {address} takes contexts of {length} tokens, and those of this run have up to "
            f"{self._context_tokens}, max_prompt_tokens and max_completion_length together. Start it with that "
            "--max-model-len, or set a smaller --max_prompt_tokens."
        ]

    def _of(self, rank: int) -> list[str]:
        return [address for address in share(self._addresses, rank, self._world) if address in self._loaded]

    @contextlib.contextmanager
    def policy(
        self,
        *,
        num_slots: int,
        max_tokens: int,
        stop_token_ids: Sequence[int],
        vocab_size: int,
        temperature: float,
        seed: int,
    ) -> Iterator[StreamingPolicy]:
        """A policy that samples from this process's servers, with the weights that were pushed last."""
        with contextlib.ExitStack() as stack:
            servers = [
                stack.enter_context(
                    ServerPolicy(
                        address,
                        self._model,
                        max_tokens=max_tokens,
                        temperature=temperature,
                        seed=seed,
                        stop_token_ids=stop_token_ids,
                        vocab_size=vocab_size,
                        max_concurrency=num_slots,
                        processed_log_probs=True,
                        version=self.version,
                    )
                )
                for address in self._of(self._rank)
            ]
            yield servers[0] if len(servers) == 1 else ServerGroup(servers)


def _takes(address: str) -> bool:
    """Whether a server has loaded the weights in its folder."""
    try:
        load_weights(address)
    except InfrastructureError as error:
        print(f"{address} does not take new weights and is not asked: {error}", file=sys.stderr, flush=True)
        return False
    return True
