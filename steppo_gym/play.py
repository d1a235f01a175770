"""An episode in the terminal: by hand, or the expert's."""

from __future__ import annotations

import re

from steppo_gym.actions import format_listed
from steppo_gym.env import TextEnv
from steppo_gym.quoting import terminal_text

_TAG = re.compile(r"</\w+>")


def play(env: TextEnv, *, task_id: str | None = None, seed: int | None = None, expert: bool = False) -> None:
    """Play one episode. Reads actions from stdin until the episode or the input is over; prints everything.

    An action is written as the environment lists it, `open box`. A line that closes a tag is taken as the whole
    response: where actions have tags of their own, such as `<search> words </search>`, they are written so.

    Args:
        env: in the append context, where each observation says only what is new.
        task_id: which task; None draws one.
        seed: seeds the environment.
        expert: let the expert act.
    """
    observation, info = env.reset(seed=seed, options=None if task_id is None else {"task_id": task_id})
    if not expert:
        print("An empty line lists what can be done, Ctrl-D leaves. A line with tags is a whole response.\n")
    _show(f"{env.system_prompt}\n\n[{info['task_id']}]\n{observation}")
    terminated = truncated = False
    while not (terminated or truncated):
        response = env.expert_response() if expert else _ask(info["admissible_actions"], env)
        if response is None:
            print("\nLeft before the end.")
            return
        if expert:
            _show(f"> {response}")
        observation, reward, terminated, truncated, info = env.step(response)
        _show(observation)
        if reward:
            print(f"(reward {reward:g})")
    ending = "solved" if info["success"] else "not solved" if terminated else f"stopped after {env.max_steps} steps"
    scores = ", ".join(f"{name} {value:g}" for name, value in info["metrics"].items())
    print(f"\nThe task is {ending}. {env.num_steps} steps; {scores}")


def _ask(admissible_actions: tuple[str, ...] | None, env: TextEnv) -> str | None:
    """The next response, None at the end of the input. An empty line lists what can be done."""
    while True:
        try:
            line = input("> ").strip()
        except EOFError:
            return None
        if line:
            return line if _TAG.search(line) else format_listed(line, env.tools)
        _show(f"You can: {', '.join(admissible_actions)}" if admissible_actions else "There is no list of actions.")


def _show(text: str) -> None:
    """Print what data say, which may be from anywhere."""
    print(terminal_text(text))
