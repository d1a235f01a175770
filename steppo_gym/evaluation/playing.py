"""Playing a panel: every task a number of times. Episodes are written as they end, and an interruption costs no others.

playing = Playing(panel, tries=4, file=Path("evaluation/episodes/panel.jsonl"))
episodes = playing.run(policy, pool, codec)
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from steppo_gym.errors import DataError
from steppo_gym.evaluation.panels import Panel
from steppo_gym.rollouts.codec import Codec
from steppo_gym.rollouts.episode import Episode, read_episodes, write_episodes
from steppo_gym.rollouts.policies import Policy, Request, Response
from steppo_gym.rollouts.pool import EnvPool
from steppo_gym.rollouts.rollout import Assignment, collect


class Playing:
    """The episodes of an evaluation, those of an earlier start included.

    Try k of task i of N is number k * N + i. It is the seed of the environment's `reset` and names the stream of the
    policy's randomness, so that an evaluation that was interrupted comes out like one that was not, and more tries
    leave the first ones as they are. The first try of each task is what a training run's own tests play.

    Args:
        panel: the tasks.
        tries: of each task.
        file: where the episodes are, and where more are added.

    Raises:
        DataError: the file holds something else than episodes of this panel.
    """

    def __init__(self, panel: Panel, *, tries: int, file: str | Path) -> None:
        self.panel, self.tries, self.file = panel, tries, Path(file)
        self._ids = [task.id for task in panel.tasks]
        self._ended = {} if not self.file.exists() else self._read()

    @property
    def missing(self) -> list[int]:
        """Numbers of the episodes that are still to be played, those that failed among them."""
        played = {number for number, episode in self._ended.items() if episode.ended != "failed"}
        return [number for number in range(self.tries * len(self._ids)) if number not in played]

    def run(
        self, policy: Policy, pool: EnvPool, codec: Codec, *, max_prompt_tokens: int | None = None, show: bool = True
    ) -> list[Episode]:
        """Play what is missing.

        Args:
            policy: writes the responses.
            pool: the environments.
            codec: of the policy.
            max_prompt_tokens: see `steppo_gym.rollouts.rollout.collect`.
            show: a progress bar.

        Returns:
            All episodes, by task and then by try.

        Raises:
            InfrastructureError: the policy, the environments or a worker kept failing. What has been played is kept.
        """
        numbers, size = self.missing, len(self._ids)
        # What was cut while it was written, and what failed, is gone from the file before anything is added to it.
        self._rewrite([number for number in sorted(self._ended) if number not in numbers])
        assignments = [Assignment(self._ids[n % size], seed=n, group=n % size) for n in numbers]
        total = self.tries * size
        with tqdm(
            total=total, initial=total - len(numbers), unit="episode", disable=None if show else True, leave=False
        ) as bar:

            def keep(episode: Episode) -> None:
                write_episodes(self.file, [episode], append=True)
                assert episode.seed is not None
                self._ended[episode.seed] = episode
                bar.update()

            if assignments:
                collect(
                    _Numbered(policy, numbers),
                    pool,
                    codec,
                    assignments,
                    max_prompt_tokens=max_prompt_tokens,
                    on_episode=keep,
                )
        self._rewrite(sorted(self._ended))
        return [self._ended[k * size + i] for i in range(size) for k in range(self.tries)]

    def _read(self) -> dict[int, Episode]:
        content = self.file.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if len(whole) < len(content):
            # The last line was cut while it was written.
            os.truncate(self.file, len(whole))
        ended = {}
        for episode in read_episodes(self.file):
            if episode.seed is None or self._ids[episode.seed % len(self._ids)] != episode.task_id:
                raise DataError(
                    f"{self.file} holds an episode of {episode.task_id!r} that this panel has not at its place. "
                    "Name another --out."
                )
            ended[episode.seed] = episode
        return ended

    def _rewrite(self, numbers: Sequence[int]) -> None:
        """Have these episodes in the file, in this order; the file is there whole at any moment."""
        partial = self.file.with_suffix(".partial")
        write_episodes(partial, [self._ended[number] for number in numbers])
        partial.replace(self.file)


class _Numbered:
    """A policy whose requests carry the numbers of the episodes in the evaluation, not in what is left of it."""

    def __init__(self, policy: Policy, numbers: Sequence[int]) -> None:
        self._policy, self._numbers, self.needs_expert = policy, numbers, policy.needs_expert

    def respond(self, requests: Sequence[Request]) -> list[Response]:
        """The policy's responses."""
        return self._policy.respond([self._with_number(request) for request in requests])

    def _with_number(self, request: Request) -> Request:
        assert request.stream is not None, "collect names the stream of every request"
        return replace(request, stream=(self._numbers[request.stream[0]], request.stream[1]))
