"""What SIGTERM, Ctrl-C and the end of the terminal (SIGHUP, unless under `nohup`) do to a run.

Before and after training they end it at once. During rollouts and evaluations of training it ends with the episode that
is being played; during updates it first makes the other updates of the iteration, because its episodes are in no
checkpoint. Then a checkpoint is written and the command that goes on is said. A second signal ends the process at once.
"""

from __future__ import annotations

import contextlib
import os
import signal
import stat
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

from safetensors import SafetensorError
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from steppo_gym.errors import SteppoGymError
from steppo_gym.quoting import terminal_text
from steppo_gym.rollouts.episode import Episode

WAITING = "\nEnding with a checkpoint, after the updates of this iteration at the latest. Once more ends it at once.\n"
"""Said on a signal in training, where updates may take minutes."""
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(BaseException):
    """A signal asked the run to end.

    Attributes:
        number: of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number

    @property
    def exit_status(self) -> int:
        """As shells have it: 130 for Ctrl-C, 143 for SIGTERM, 129 for the end of the terminal."""
        return 128 + self.number


class Interruption(TrainerCallback):
    """Ends a run where nothing is lost.

    Args:
        updates_in_iteration: optimizer steps of one iteration.
    """

    def __init__(self, updates_in_iteration: int) -> None:
        self.updates_in_iteration = updates_in_iteration
        self.received = 0
        self.again = ""
        """The command that goes on, once there is a folder."""
        # One object of each process, in the order of the ranks; the trainer's own, once there is one.
        self.gather: Callable[[Any], list[Any]] = lambda part: [part]
        self._trains = False

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Receive the signals; outside of the main thread, where Python has none, nothing changes."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        heard = [number for number in SIGNALS if number != signal.SIGHUP or not _outlives_terminal()]
        before = {number: signal.signal(number, self._receive) for number in heard}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextlib.contextmanager
    def training(self) -> Iterator[None]:
        """Wait for a good moment as long as this is open."""
        self._trains = True
        try:
            yield
        finally:
            self._trains = False

    def on_episode(self, _: Episode) -> None:
        """End in rollouts and evaluations; several processes end together, after the updates."""
        if self.received and int(os.environ.get("WORLD_SIZE", "1")) == 1:
            raise Interrupted(self.received)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """End after the last update of an iteration, with a checkpoint; its evaluation is left to who goes on."""
        if state.global_step % self.updates_in_iteration:
            return
        # Each process has received it at another moment, or not yet.
        self.received = max(self.gather(self.received))
        if self.received and state.global_step < state.max_steps:
            control.should_training_stop = control.should_save = True
            control.should_evaluate = False

    def _receive(self, number: int, _: Any) -> None:
        if self.received:
            # No exception, which somebody might catch, and no clean-up, which might be what hangs.
            os._exit(128 + number)
        self.received = number
        if number == signal.SIGHUP:
            _leave_terminal()
        if not self._trains:
            raise Interrupted(number)
        if os.environ.get("RANK", "0") == "0":
            # Not print, which the signal may have come into.
            os.write(2, WAITING.encode())


def _outlives_terminal() -> bool:
    """Whether the process was started by `nohup` or the like."""
    return signal.getsignal(signal.SIGHUP) == signal.SIG_IGN


def _leave_terminal() -> None:
    """Write nowhere what would go to a terminal that is gone, or to who read for it: that would be an error."""
    for descriptor in (1, 2):
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, descriptor)
            os.close(nowhere)


@contextlib.contextmanager
def ending_in_one_line(interruption: Interruption) -> Iterator[None]:
    """What is broken outside of this program needs a cause, not a traceback.

    Exits with 1 after a failure, with 130, 143 or 129 after Ctrl-C, SIGTERM or the end of the terminal.
    """
    try:
        with interruption.listening():
            yield
    except Interrupted as signalled:
        going_on = f"Go on with: {interruption.again}" if interruption.again else "Nothing was done."
        print(f"Ended by {signalled}. {going_on}", file=sys.stderr)
        sys.exit(signalled.exit_status)
    except (SteppoGymError, OSError, SafetensorError) as error:
        said = terminal_text(" ".join(str(error).split()))
        sys.exit(f"The run has ended: {said or type(error).__name__}")
