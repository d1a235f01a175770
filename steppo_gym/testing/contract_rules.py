"""The rules of the contract, one function each; `RULES` lists them in the order a new environment meets them."""

from __future__ import annotations

import itertools
import json
import time
import warnings
from collections.abc import Callable

import numpy as np
from gymnasium.utils.env_checker import check_env

from steppo_gym.actions import ACTION_FORMATS, first_argument
from steppo_gym.errors import EpisodeOverError, UnknownTaskError
from steppo_gym.keywords import CONTEXTS
from steppo_gym.testing.adversarial_texts import adversarial_texts
from steppo_gym.testing.branching import branches_episodes
from steppo_gym.testing.case import INVALID_RESPONSE, Case
from steppo_gym.testing.contract import CheckedEnv, ContractError, Result, differences, require, require_raises

SLOW_SECONDS = 5.0
"""A single step on a hostile text may not take longer."""
_SHORT_LIMIT = 3
_ACTIONS_PER_STATE = 8


def follows_gymnasium(case: Case) -> None:
    """Gymnasium's own checker finds nothing, not even a reason to warn."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        env = case.make_env().unwrapped
        try:
            # Without a spec Gymnasium cannot make one environment per render mode, and warns.
            check_env(env, skip_render_check=env.spec is None)
        except Exception as error:
            require(False, "gymnasium.utils.env_checker.check_env passes without a warning", error)
        finally:
            env.close()


def takes_the_common_arguments(case: Case) -> None:
    """Both action formats, both contexts, and no keyword that does not exist."""
    require_raises(TypeError, "an unknown keyword", lambda: case.make_env(no_environment_has_this_keyword=1))
    for action_format, context in itertools.product(ACTION_FORMATS, CONTEXTS):
        with case.open(action_format=action_format, context=context) as env:
            prompt, tools = env.text_env.system_prompt, json.loads(json.dumps(env.text_env.tools))
            require(bool(prompt.strip()), "there is a system prompt", prompt)
            require(bool(tools) == (action_format == "tool_call"), "only the tool-call format has tools", tools)


def starts_tasks(case: Case) -> None:
    """`task_ids` are unique, and `reset` starts the one asked for."""
    with case.open() as env:
        task_ids = list(env.text_env.task_ids)
        require(0 < len(task_ids) == len(set(task_ids)), "task_ids are unique and at least one", task_ids[:10])
        for task_id in case.tasks(env):
            found = case.reset(env, task_id).info["task_id"]
            require(found == task_id, f"reset with the option task_id {task_id!r} starts that task", found)
        unknown = {"task_id": "no environment has this task"}
        require_raises(UnknownTaskError, "an unknown task_id", lambda: env.reset(options=unknown))
        require_raises(ValueError, "an unknown option of reset", lambda: env.reset(options={"no_such_option": 1}))


def is_deterministic(case: Case) -> None:
    """The same seed and the same responses give the same bytes in two instances."""
    with case.open() as first, case.open() as second:
        rng = np.random.default_rng(case.seed)
        for seed in range(case.seed, case.seed + case.episodes):
            one, other = first.reset(seed=seed), second.reset(seed=seed)
            require(one == other, "two instances reset with one seed answer the same", differences(one, other))
            while not one.over:
                response = case.random_response(first, one.info, rng)
                one, other = first.step(response), second.step(response)
                require(one == other, "two instances answer the same response the same", differences(one, other))


def stops_at_the_limit(case: Case) -> None:
    """An episode is truncated at exactly `max_steps`, and there is no step outside an episode."""
    for limit in ({}, {"max_steps": _SHORT_LIMIT}):
        with case.open(**limit) as env:
            max_steps = env.text_env.max_steps
            require(max_steps == limit.get("max_steps", max_steps), "max_steps overrides the limit", max_steps)
            require_raises(EpisodeOverError, "a step before reset", lambda env=env: env.text_env.step("x"))
            env.reset(seed=case.seed)
            for step in range(1, max_steps + 1):
                truncated = env.step(INVALID_RESPONSE).truncated
                require(truncated == (step == max_steps), f"truncated is set at step {max_steps} and not before", step)
            require_raises(EpisodeOverError, "a step after the end", lambda env=env: env.step(INVALID_RESPONSE))


def ignores_invalid_responses(case: Case) -> None:
    """An invalid response costs a step, says why, and changes nothing."""
    for action_format in ACTION_FORMATS:
        with case.open(action_format=action_format) as env:
            for task_id in case.tasks(env):
                before = case.reset(env, task_id)
                while not before.over and env.text_env.num_steps + 1 < env.text_env.max_steps:
                    _require_no_change(env, before)
                    before = env.step(env.text_env.expert_response())


def _require_no_change(env: CheckedEnv, before: Result) -> None:
    num_steps = env.text_env.num_steps
    after = env.step(INVALID_RESPONSE)
    unchanged = ("task_id", "state_key", "admissible_actions", "success")
    changed = [
        f"{key}: {before.info[key]} -> {after.info[key]}" for key in unchanged if before.info[key] != after.info[key]
    ]
    reason = after.info["invalid_action"]
    require(bool(reason), "info['invalid_action'] says why a response is invalid", reason)
    require(not changed, "an invalid response changes nothing", changed)
    require(after.reward <= 0, "an invalid response has no positive reward", after.reward)
    require(not after.terminated, "an invalid response does not end the task", after)
    require(env.text_env.num_steps == num_steps + 1, "an invalid response costs a step", env.text_env.num_steps)


def restores_snapshots(case: Case) -> None:
    """A snapshot that went through JSON has the same future, in the same and in a new instance.

    To the future belongs the next episode, whose task is drawn from the snapshot's random state.
    """
    with case.open() as env, case.open() as fresh:
        for position, task_id in enumerate(case.tasks(env)):
            responses, _ = case.random_episode(env, task_id)
            cut = position % len(responses)
            case.reset(env, task_id)
            for response in responses[:cut]:
                env.step(response)
            state = env.text_env.get_state()
            snapshot = json.loads(json.dumps(state))
            future = [*(env.text_env.step(response) for response in responses[cut:]), env.text_env.reset()]
            # Through JSON again, which makes lists of tuples.
            kept = json.loads(json.dumps(state))
            parts = {part: (snapshot.get(part), kept.get(part)) for part in snapshot | kept}
            changed = {part: pair for part, pair in parts.items() if pair[0] != pair[1]}
            require(not changed, "a snapshot stays as it was when the episode goes on", changed)
            for target in (env.text_env, fresh.text_env):
                target.set_state(snapshot)
                again = [*(target.step(response) for response in responses[cut:]), target.reset()]
                differing = next((pair for pair in zip(again, future, strict=True) if pair[0] != pair[1]), None)
                require(differing is None, "a restored snapshot has the same future", differing)


def keys_its_states(case: Case) -> None:
    """Equal keys mean equal states: in one task what can be done is the same, and other tasks have other keys.

    The way to a state and the number of steps it took are not part of it.
    """
    with case.open() as env:
        seen: dict[str, set[str]] = {}
        for task_id in case.tasks(env):
            for result in case.random_episode(env, task_id)[1]:
                actions = result.info["admissible_actions"] or ()
                shown = {f"task {task_id}", f"success {result.info['success']}", *actions}
                differing = seen.setdefault(result.info["state_key"], shown) ^ shown
                require(not differing, "an equal state_key means an equal state", f"only one has {differing}")
            _require_key_of_the_state_alone(case, env, task_id)


def _require_key_of_the_state_alone(case: Case, env: CheckedEnv, task_id: str) -> None:
    case.reset(env, task_id)
    response = env.text_env.expert_response()
    direct = env.step(response)
    case.reset(env, task_id)
    env.step(INVALID_RESPONSE)
    later = env.step(response)
    found = (direct.info["state_key"], later.info["state_key"])
    require(found[0] == found[1], "state_key does not depend on how many steps led to the state", found)


def admits_what_it_lists(case: Case) -> None:
    """Every admissible action is a valid one, in both action formats."""
    for action_format in ACTION_FORMATS:
        with case.open(action_format=action_format) as env:
            for task_id in case.tasks(env):
                result = case.reset(env, task_id)
                while not result.over:
                    _require_valid_actions(case, env, result)
                    result = env.step(env.text_env.expert_response())


def _require_valid_actions(case: Case, env: CheckedEnv, result: Result) -> None:
    actions = result.info["admissible_actions"]
    require(actions is None or len(actions) > 0, "before the end something can be done", actions)
    snapshot = env.text_env.get_state()
    stride = max(1, len(actions or ()) // _ACTIONS_PER_STATE)
    for action in (actions or ())[::stride]:
        response = case.write(env.text_env, action)
        reason = env.step(response).info["invalid_action"]
        require(reason is None, f"the admissible action {action!r} is valid, written as {response!r}", reason)
        env.text_env.set_state(snapshot)


def can_be_solved(case: Case) -> None:
    """The expert solves the tasks, and format and context change only texts."""
    for task_id in case.some_tasks():
        runs = {}
        for action_format, context in itertools.product(ACTION_FORMATS, CONTEXTS):
            with case.open(action_format=action_format, context=context) as env:
                result = case.reset(env, task_id)
                run = [result.info["state_key"]]
                total = 0.0
                while not result.over:
                    result = env.step(env.text_env.expert_response())
                    total += result.reward
                    run.append(result.info["state_key"])
                reached = f"terminated={result.terminated}, success={result.info['success']}, total reward {total}"
                # Where an agent says itself that it is done, the last step may bring the solution and end by the limit.
                solved = result.info["success"] and total > 0
                require(solved, f"the expert solves {task_id!r} ({action_format}, {context})", reached)
                require_raises(EpisodeOverError, "a step after the end", lambda env=env: env.step(INVALID_RESPONSE))
                runs[action_format, context] = [*run, str(total)]
        first = next(iter(runs.values()))
        same = all(run == first for run in runs.values())
        require(same, f"states and rewards of {task_id!r} are the same in every format and context", runs)


def survives_adversarial_texts(case: Case) -> None:
    """No text makes a step raise or hang."""
    with case.open(action_format="tool_call") as env:
        tool, argument = first_argument(env.text_env.tools)
    for action_format, context in zip(ACTION_FORMATS, CONTEXTS, strict=True):
        with case.open(action_format=action_format, context=context) as env:
            over = True
            for label, text in adversarial_texts(case.tag, tool, argument):
                if over:
                    env.reset(seed=case.seed)
                start = time.perf_counter()
                try:
                    over = env.step(text).over
                except ContractError:
                    raise
                except Exception as error:
                    require(
                        False, f"a response never raises ({label}, {action_format})", f"{type(error).__name__}: {error}"
                    )
                seconds = time.perf_counter() - start
                require(seconds < SLOW_SECONDS, f"a response takes no more than {SLOW_SECONDS} s ({label})", seconds)


def forgets_earlier_episodes(case: Case) -> None:
    """An episode is the same whatever was played before it, to its end or not."""
    for context in CONTEXTS:
        with case.open(context=context) as used:
            for task_id in case.tasks(used):
                case.reset(used, task_id)
                used.step(INVALID_RESPONSE)
                with case.open(context=context) as fresh:
                    expected, found = case.random_episode(fresh, task_id), case.random_episode(used, task_id)
                differing = next(
                    (pair for pair in zip(found[1], expected[1], strict=False) if pair[0] != pair[1]), None
                )
                require(found == expected, f"an episode does not depend on earlier ones ({context})", differing)


RULES: tuple[Callable[[Case], None], ...] = (
    takes_the_common_arguments,
    starts_tasks,
    stops_at_the_limit,
    ignores_invalid_responses,
    is_deterministic,
    restores_snapshots,
    branches_episodes,
    keys_its_states,
    admits_what_it_lists,
    can_be_solved,
    survives_adversarial_texts,
    forgets_earlier_episodes,
    follows_gymnasium,
)
