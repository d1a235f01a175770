from __future__ import annotations

import ast
import math
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from steppo_gym.errors import InfrastructureError
from steppo_gym.rollouts.env_host import EnvHost
from steppo_gym.rollouts.episode import Failure
from steppo_gym.rollouts.pool import (
    MAX_RESTARTS,
    EnvFactory,
    EnvPool,
    ResetCommand,
    StepCommand,
    StepResult,
    StepTimeout,
)
from steppo_gym.rollouts.worker_process import WorkerProcess

ENV_ID = "rollout_envs:steppo-test/Walk-v0"
TESTS = Path(__file__).parent


@pytest.fixture(autouse=True)
def importable_env(monkeypatch):
    monkeypatch.syspath_prepend(str(TESTS))


def make_pool(num_slots=4, num_workers=2, *, step_timeout=60.0, reset_timeout=60.0, **kwargs):
    return EnvPool(
        EnvFactory(ENV_ID, kwargs),
        num_slots=num_slots,
        num_workers=num_workers,
        step_timeout=step_timeout,
        reset_timeout=reset_timeout,
    )


def ask(pool, *commands):
    return pool.wait(pool.submit(commands))


def start(pool, *task_ids, seed=0):
    return ask(pool, *(ResetCommand(slot, task_id, seed) for slot, task_id in enumerate(task_ids)))


def go(pool, *slots):
    return ask(pool, *(StepCommand(slot, "go") for slot in slots))


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False


def wait_until_dead(pids, seconds=10.0):
    deadline = time.monotonic() + seconds
    while any(map(is_alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not any(map(is_alive, pids))


def without_time(results):
    return {slot: {**vars(result), "seconds": 0.0} for slot, result in results.items()}


@pytest.mark.parametrize("num_workers", [1, 2, 3, 4, 9])
def test_workers_answer_like_environments_in_this_process(num_workers):
    with make_pool(num_workers=0) as here, make_pool(num_workers=num_workers) as there:
        assert (there.context, there.system_prompt, there.tools) == (here.context, here.system_prompt, here.tools)
        for commands in (
            [ResetCommand(slot, "walk-2", seed=slot, needs_expert=True) for slot in range(4)],
            [StepCommand(3, "go"), StepCommand(1, "stay"), StepCommand(0, "go", needs_expert=True)],
            [StepCommand(0, "go", needs_expert=True), ResetCommand(3, "walk-3", seed=9)],
        ):
            answered = ask(there, *commands)
            assert set(answered) == {command.slot for command in commands}
            assert without_time(answered) == without_time(ask(here, *commands))


def test_environments_are_spread_over_the_workers():
    for num_slots, num_workers, expected in ((5, 2, 2), (5, 4, 3), (2, 8, 2), (3, 1, 1), (3, 0, 0)):
        with make_pool(num_slots, num_workers) as pool:
            assert len(set(pool.worker_pids)) == expected


def test_expert_is_asked_only_if_needed_and_never_after_the_end():
    with make_pool(1, 0) as pool:
        assert start(pool, "walk-2")[0].expert_response is None
        states = [ask(pool, StepCommand(0, "go", needs_expert=True))[0] for _ in range(2)]
        assert [state.expert_response for state in states] == ["go expert 1", None]
        assert states[1].metrics["experts"] == 1.0


def test_two_batches_of_long_texts_do_not_block_each_other():
    with make_pool(4, 1) as pool:
        start(pool, *["long-99"] * 4)
        first = pool.submit([StepCommand(0, "go" + "y" * 1_000_000), StepCommand(1, "go")])
        second = pool.submit([StepCommand(2, "go" + "y" * 1_000_000), StepCommand(3, "go")])
        assert set(pool.wait(second)) == {2, 3}
        assert all(len(state.observation) == 1_000_000 for state in pool.wait(first).values())


@pytest.mark.parametrize("num_workers", [0, 1])
def test_an_exception_becomes_a_failure_and_a_new_environment(num_workers):
    with make_pool(2, num_workers) as pool:
        start(pool, "probe-9", "raise-1")
        assert isinstance(go(pool, 1)[1], StepResult)
        failure = go(pool, 0, 1)[1]
        assert failure.boundary == "environment"
        assert "RuntimeError: the walker fell" in failure.message
        assert "_misbehave" in failure.message
        # Only the slot that raised has another environment than before.
        first, second = start(pool, "probe-9", "probe-9").values()
        numbers = [ast.literal_eval(state.observation)[2] for state in (first, second)]
        assert numbers[1] == numbers[0] + 2


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_failure_of_infrastructure_keeps_its_boundary_and_the_environment(num_workers):
    with make_pool(1, num_workers) as pool:
        before = ast.literal_eval(start(pool, "probe-9")[0].observation)[2]
        start(pool, "search-0")
        assert go(pool, 0)[0] == Failure("search", "the server is down")
        assert ast.literal_eval(start(pool, "probe-9")[0].observation)[2] == before


def test_a_reward_that_is_no_number_is_a_failure():
    with make_pool(1, 0) as pool:
        start(pool, "nan-9")
        assert "reward must be finite" in go(pool, 0)[0].message


def test_a_killed_worker_fails_its_own_slots_and_is_replaced():
    with make_pool(4, 2) as pool:
        pids = pool.worker_pids
        start(pool, "walk-9", "kill-1", "walk-9", "walk-9")
        go(pool, 0, 1, 2, 3)
        results = go(pool, 1, 2)
        assert results[1].boundary == "worker"
        assert "SIGKILL" in results[1].message
        assert results[2].state_key == "walk-9 at 2"
        # Slot 0 was not asked anything, but its episode was in the same process.
        results = go(pool, 0, 2, 3)
        assert results[0].boundary == "worker"
        assert (results[2].state_key, results[3].state_key) == ("walk-9 at 3", "walk-9 at 2")
        assert pool.worker_pids[0] != pids[0]
        assert pool.worker_pids[1] == pids[1]
        assert isinstance(start(pool, "walk-9", "walk-9")[0], StepResult)
        assert [state.state_key for state in go(pool, 0, 1).values()] == ["walk-9 at 1", "walk-9 at 1"]


def test_a_worker_killed_from_outside_while_idle_is_noticed():
    with make_pool(2, 1) as pool:
        start(pool, "walk-9", "walk-9")
        os.kill(pool.worker_pids[0], signal.SIGKILL)
        assert {result.boundary for result in go(pool, 0, 1).values()} == {"worker"}
        assert isinstance(start(pool, "walk-9")[0], StepResult)


@pytest.mark.parametrize(("task_id", "limit"), [("hang-0", "step_timeout=0.4"), ("hangstart-0", "reset_timeout=5")])
def test_a_hanging_worker_is_killed_after_the_timeout(task_id, limit):
    # That of a reset is for the start of the process too.
    with make_pool(2, 1, step_timeout=0.4, reset_timeout=5.0 if "start" in task_id else 60.0) as pool:
        (pid,) = pool.worker_pids
        begun = time.monotonic()
        results = start(pool, "walk-9", task_id)
        if "start" not in task_id:
            results = go(pool, 0, 1)
        assert time.monotonic() - begun < 60.0
        assert results[0].boundary == "worker"
        # A response may have brought the step about, but nobody the start.
        assert isinstance(results[1], Failure if "start" in task_id else StepTimeout)
        assert limit in results[0].message and limit in results[1].message
        assert not is_alive(pid)
        assert isinstance(start(pool, "walk-9", "walk-9")[1], StepResult)


@pytest.mark.parametrize("late", range(4))
def test_the_step_that_was_not_finished_in_time_is_told_from_the_others(late):
    # The steps before it are done at once, without a new deadline, and what they answered is lost with the process.
    with make_pool(4, 1, step_timeout=0.4) as pool:
        start(pool, *("hang-0" if slot == late else "walk-9" for slot in range(4)))
        results = go(pool, 0, 1, 2, 3)
        assert [slot for slot, result in results.items() if isinstance(result, StepTimeout)] == [late]
        assert {result.boundary for slot, result in results.items() if slot != late} == {"worker"}


def test_the_timeout_is_for_one_step_and_not_for_a_batch():
    with make_pool(4, 1, step_timeout=0.5, delay=0.45) as pool:
        start(pool, *["slow-9"] * 4)
        begun = time.monotonic()
        assert all(isinstance(result, StepResult) for result in go(pool, 0, 1, 2, 3).values())
        # Longer than the limit of one step and the tolerance of a second that is added to it.
        assert time.monotonic() - begun > 1.5


def test_time_in_which_nobody_waits_does_not_count_as_hanging():
    with make_pool(2, 1, step_timeout=0.2) as pool:
        start(pool, "walk-9", "walk-9")
        first, second = pool.submit([StepCommand(0, "go")]), pool.submit([StepCommand(1, "go")])
        time.sleep(1.5)
        assert isinstance(pool.wait(first)[0], StepResult)
        assert isinstance(pool.wait(second)[1], StepResult)


def test_a_worker_that_only_ever_dies_ends_the_run():
    with make_pool(1, 1) as pool:
        for _ in range(MAX_RESTARTS - 1):
            assert start(pool, "killstart-0")[0].boundary == "worker"
        with pytest.raises(InfrastructureError, match=r"without one successful step.*num_workers=0"):
            start(pool, "killstart-0")


def test_a_successful_step_forgives_earlier_losses():
    with make_pool(1, 1) as pool:
        for _ in range(MAX_RESTARTS + 1):
            start(pool, "kill-1")
            assert isinstance(go(pool, 0)[0], StepResult)
            assert go(pool, 0)[0].boundary == "worker"


@pytest.mark.parametrize("num_workers", [0, 2])
def test_an_environment_that_cannot_be_made_raises_its_own_error(num_workers):
    with pytest.raises(ValueError, match="broken on purpose"):
        make_pool(num_workers=num_workers, broken="value")
    with pytest.raises(Exception, match="broken on purpose"):
        make_pool(num_workers=num_workers, broken="unpicklable")
    with pytest.raises(TypeError, match=r"must be a steppo_gym.TextEnv"):
        EnvPool(EnvFactory("CartPole-v1"), num_slots=2, num_workers=num_workers)


def test_a_worker_that_dies_at_its_start_raises():
    with pytest.raises(InfrastructureError, match="exit status 3"):
        make_pool(num_workers=1, broken="exit")


def test_a_worker_that_is_killed_at_its_start_is_started_again():
    before = set(children())

    def kill():
        while not (workers := set(children()) - before):
            time.sleep(0.001)
        os.kill(int(workers.pop()), signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    with make_pool(2, 2) as pool:
        killer.join()
        assert all(isinstance(result, StepResult) for result in start(pool, "walk-9", "walk-9").values())


def test_arguments_that_cannot_be_pickled_leave_no_process_behind():
    before = set(children())
    with pytest.raises((AttributeError, TypeError, Exception), match="pickle"):
        make_pool(num_workers=2, delay=lambda: None)
    assert set(children()) == before


def children():
    return (Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text()).split()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_slots": 0}, "num_slots must be at least 1, got 0"),
        ({"num_slots": 1, "num_workers": -1}, "num_workers must be 0 or more, got -1"),
        ({"num_slots": 1, "step_timeout": 0.0}, "must be positive"),
        ({"num_slots": 1, "reset_timeout": -1.0}, "must be positive"),
        ({"num_slots": 1, "step_timeout": math.nan}, "must be positive, got nan"),
    ],
)
def test_arguments_outside_their_range(arguments, message):
    with pytest.raises(ValueError, match=message):
        EnvPool(EnvFactory(ENV_ID), **arguments)


def test_workers_load_no_torch_and_use_one_thread_and_leave_the_parent_alone(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    handler, variables = signal.getsignal(signal.SIGINT), dict(os.environ)
    with make_pool(1, 1) as pool:
        seen, modules, _ = ast.literal_eval(start(pool, "probe-0")[0].observation)
    assert seen == {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    assert modules == []
    assert signal.getsignal(signal.SIGINT) is handler
    assert dict(os.environ) == variables


def test_an_interrupt_does_not_reach_the_workers():
    with make_pool(1, 1) as pool:
        start(pool, "walk-9")
        (pid,) = pool.worker_pids
        assert os.getpgid(pid) != os.getpgid(0)
        os.kill(pid, signal.SIGINT)
        time.sleep(0.1)
        assert isinstance(go(pool, 0)[0], StepResult)


def test_close_ends_the_workers_and_can_be_repeated():
    pool = make_pool(4, 2)
    pids = pool.worker_pids
    pool.close()
    pool.close()
    assert not any(map(is_alive, pids))


def test_close_does_not_wait_for_a_hanging_step():
    worker = WorkerProcess(EnvFactory(ENV_ID), step_timeout=60.0, reset_timeout=60.0)
    worker.send([ResetCommand(0, "hangstart-0", 0)])
    begun = time.monotonic()
    worker.close(timeout=0.5)
    assert time.monotonic() - begun < 30.0
    assert not is_alive(worker.pid)


SCRIPT = """
import signal, sys, time
# A shell has those that it starts in the background ignore it.
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.path.insert(0, {tests!r})
from steppo_gym.rollouts.pool import StepCommand, EnvPool, EnvFactory, ResetCommand
pool = EnvPool(EnvFactory({env_id!r}), num_slots=2, num_workers=2)
pool.wait(pool.submit([ResetCommand(0, "walk-9", 0), ResetCommand(1, "hang-0", 0)]))
pool.submit([StepCommand(1, "go")])
print(*pool.worker_pids, flush=True)
time.sleep(100)
"""


@pytest.mark.parametrize("way", [signal.SIGKILL, signal.SIGINT])
def test_workers_end_when_the_parent_dies(way):
    # One worker is idle, the other in the middle of a step that never ends. The script has no `__main__` guard.
    script = SCRIPT.format(tests=str(TESTS), env_id=ENV_ID)
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as parent:
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(pids) == 2
        assert all(map(is_alive, pids))
        parent.send_signal(way)
        parent.wait()
        assert wait_until_dead(pids)


def test_host_makes_environments_when_they_are_needed():
    spec = EnvFactory(ENV_ID)
    num_before = type(spec.make()).num_made
    host = EnvHost(spec)
    host.describe()
    numbers = [ast.literal_eval(host.run(ResetCommand(slot, "probe-0", 0)).observation)[2] for slot in (0, 1, 0)]
    # The one that was described is the first slot's.
    assert numbers == [num_before + 1, num_before + 2, num_before + 1]
    host.close()
