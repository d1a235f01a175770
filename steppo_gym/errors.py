"""Every error this package raises on purpose.

    SteppoGymError
    |-- DataError                a data file is missing, damaged or not in the expected format
    |-- UnknownTaskError         a task id or split that the environment does not have
    |-- EpisodeOverError         `step` after the end of an episode, or before the first `reset`
    |-- UnsupportedVersionError  a dependency is installed in a version this package was not written for
    |-- NonFiniteError           a loss, gradient, reward or weight is NaN or infinite
    |-- CheckpointError          a checkpoint could not be written, or not be read
    |-- SamplingGapError         responses are sampled from another distribution than is trained
    `-- InfrastructureError      a worker, server or engine failed; the episode is void, not lost
        `-- AllEpisodesFailedError   so did all episodes of a rollout, and nothing can be learned from it

Catch `InfrastructureError` where episodes are collected: it never says anything about the policy. Everything else is a
mistake in the call and says what was wrong, what was found and what to do.
"""


class SteppoGymError(Exception):
    """Base class of all errors of this package."""


class DataError(SteppoGymError):
    """A data file is missing, damaged or not in the expected format."""


class UnknownTaskError(SteppoGymError, ValueError):
    """A task id or split that the environment does not have."""


class EpisodeOverError(SteppoGymError, RuntimeError):
    """`step` was called after the end of an episode, or before the first `reset`."""


class UnsupportedVersionError(SteppoGymError, RuntimeError):
    """A dependency is installed in a version this package was not written for."""


class NonFiniteError(SteppoGymError, ArithmeticError):
    """A loss, gradient, reward or weight is NaN or infinite; raised before it changes anything."""


class CheckpointError(SteppoGymError, RuntimeError):
    """A checkpoint could not be written or not be read; those before are whole."""


class SamplingGapError(SteppoGymError, RuntimeError):
    """Responses are sampled from another distribution than the one that is trained."""


class InfrastructureError(SteppoGymError, RuntimeError):
    """A worker, server or engine failed: the episode says nothing about the policy.

    Attributes:
        boundary: where it happened: "environment", "worker", "search", "model", "download"; or "prompt", where a
            rollout ends because one first prompt after the other is too long.
    """

    def __init__(self, boundary: str, message: str) -> None:
        super().__init__(f"{boundary}: {message}")
        self.boundary = boundary
        self.message = message

    def __reduce__(self) -> tuple[type["InfrastructureError"], tuple[str, str]]:
        """Survive the pickling between worker and parent process."""
        return type(self), (self.boundary, self.message)


class AllEpisodesFailedError(InfrastructureError):
    """Every episode of a rollout failed, so there is nothing to train on or to score."""

    def __init__(self, number: int, boundary: str, message: str) -> None:
        super().__init__(boundary, message)
        self.number = number

    def __str__(self) -> str:
        return f"All {self.number} episodes failed, the first at the boundary {self.boundary!r} with: {self.message}"

    def __reduce__(self) -> tuple[type["AllEpisodesFailedError"], tuple[int, str, str]]:  # type: ignore[override]
        """Survive pickling."""
        return type(self), (self.number, self.boundary, self.message)
