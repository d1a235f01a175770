"""The experts: one that sees everything, and two that only read."""

from __future__ import annotations

import itertools
import json

import gymnasium
import numpy as np
import pytest

import steppo_gym  # noqa: F401 - registers the environments
from steppo_gym.envs.alfworld.data import ProceduralGames
from steppo_gym.envs.alfworld.engine.game import FastEngine
from steppo_gym.envs.alfworld.experts.memory import remember
from steppo_gym.envs.alfworld.experts.oracle import World, plan
from steppo_gym.envs.alfworld.experts.search import WRONG, search_command, slip
from steppo_gym.envs.alfworld.tasks import TASK_TYPES, Goal
from steppo_gym.errors import DataError


def make(**kwargs):
    return gymnasium.make("steppo/ALFWorld-v0", **({"difficulty": "easy", "max_steps": 100} | kwargs)).unwrapped


def play(env, task_id, seed=0, limit=100):
    """The expert's episode: its responses, its slips and the infos after them."""
    env.reset(seed=seed, options={"task_id": task_id})
    responses, slips, infos = [], [], []
    for _ in range(limit):
        responses.append(env.expert_response())
        slips.append(env.expert_slip)
        *_, terminated, truncated, info = env.step(responses[-1])
        infos.append(info)
        if terminated or truncated:
            break
    return responses, slips, infos


@pytest.mark.parametrize(("difficulty", "count"), [("easy", 20), ("medium", 15), ("full", 18)])
def test_the_oracle_wins_in_as_few_steps_as_the_walkthrough(difficulty, count):
    env = make(difficulty=difficulty, split="valid_unseen")
    for task_id in env.task_ids[:count]:
        responses, slips, infos = play(env, task_id)
        assert infos[-1]["success"]
        assert len(responses) <= len(env.games.load(task_id).content["walkthrough"])
        assert not any(slips)
        assert not any(info["invalid_action"] for info in infos)


def shortest(engine, wanted):
    """Steps of a shortest win, by trying everything but what cannot help: looking, closing, taking other objects."""
    start = engine.reset()
    seen = {key(engine)}
    frontier = [((), start.admissible_commands)]
    for length in itertools.count(1):
        reached = []
        for path, commands in frontier:
            for command in commands:
                if not command.startswith(("go", "open", f"take {wanted} ", "move")):
                    continue
                state = engine.set_state([*path, command])
                if state.won:
                    return length
                if key(engine) not in seen:
                    seen.add(key(engine))
                    reached.append(((*path, command), state.admissible_commands))
        frontier = reached


def key(engine):
    return frozenset(fact for fact in engine.facts() if fact[0] != "checked")


@pytest.mark.parametrize("number", [2, 31])
def test_the_oracle_is_optimal_where_that_can_be_searched(number):
    game, engine = ProceduralGames("test_unseen", "easy").load(f"easy/test_unseen/{number:05d}"), FastEngine()
    engine.load(game.content)
    engine.reset()
    planned = plan(World.from_facts(engine.facts()), game.goal, engine.names())
    assert len(planned) == shortest(engine, game.goal.object_type)


@pytest.mark.parametrize("task_type", TASK_TYPES)
def test_the_oracle_wins_from_any_state(task_type):
    env = make(difficulty="full", task_types=(task_type,), max_steps=60)
    rng = np.random.default_rng(0)
    won = 0
    for task_id in env.task_ids[:4]:
        env.reset(seed=0, options={"task_id": task_id})
        over = False
        for step in range(60):
            commands = [text for text in env._admissible_actions() if step % 5 or text.startswith(("take", "move"))]
            text = f"<action>{rng.choice(commands or env._admissible_actions())}</action>"
            *_, over, truncated, info = env.step(env.expert_response() if step >= 40 else text)
            if over or truncated:
                break
        won += info["success"]
    assert won == 4


def test_the_oracle_puts_down_what_is_in_its_way():
    facts = {
        ("atlocation", "agent1", "l2"),
        ("holds", "agent1", "pen_bar_1"),
        ("receptacleatlocation", "safe_bar_1", "l1"),
        ("receptacleatlocation", "desk_bar_1", "l2"),
        ("openable", "safe_bar_1"),
        ("receptacletype", "safe_bar_1", "safetype"),
        ("receptacletype", "desk_bar_1", "desktype"),
        ("objecttype", "pen_bar_1", "pentype"),
        ("objecttype", "cd_bar_1", "cdtype"),
        ("pickupable", "cd_bar_1"),
        ("inreceptacle", "cd_bar_1", "safe_bar_1"),
        ("cancontain", "desktype", "pentype"),
        ("cancontain", "desktype", "cdtype"),
    }
    names = {"pen_bar_1": "pen 1", "cd_bar_1": "cd 1", "safe_bar_1": "safe 1", "desk_bar_1": "desk 1"}
    goal = Goal("pick_and_place_simple", "cd", "desk")
    assert plan(World.from_facts(facts), goal, names) == [
        "move pen 1 to desk 1",
        "go to safe 1",
        "open safe 1",
        "take cd 1 from safe 1",
        "go to desk 1",
        "move cd 1 to desk 1",
    ]
    assert plan(World.from_facts(facts - {("pickupable", "cd_bar_1")}), goal, names) == []
    assert plan(World.from_facts(facts - {("cancontain", "desktype", "pentype")}), goal, names) == []
    assert plan(World.from_facts(facts - {("cancontain", "desktype", "cdtype")}), goal, names) == []


def test_the_oracle_leaves_the_light_on():
    facts = {
        ("atlocation", "agent1", "l2"),
        ("receptacleatlocation", "desk_bar_1", "l1"),
        ("receptacleatlocation", "bed_bar_1", "l2"),
        ("objecttype", "desklamp_bar_1", "desklamptype"),
        ("inreceptacle", "desklamp_bar_1", "desk_bar_1"),
        ("objecttype", "pen_bar_1", "pentype"),
        ("inreceptacle", "pen_bar_1", "bed_bar_1"),
        ("pickupable", "pen_bar_1"),
    }
    names = {name: name.replace("_bar_", " ") for name in ("desklamp_bar_1", "desk_bar_1", "bed_bar_1", "pen_bar_1")}
    goal = Goal("look_at_obj_in_light", "pen", "desklamp")
    commands = ["take pen 1 from bed 1", "go to desk 1", "use desklamp 1"]
    assert plan(World.from_facts(facts), goal, names) == commands
    assert plan(World.from_facts(facts | {("istoggled", "desklamp_bar_1")}), goal, names) == commands[:2]


def test_games_before_0_4_are_spelled_differently(tmp_path):
    content = dict(ProceduralGames("train", "full").load("full/train/00005").content)
    old = content["grammar"].replace("move {o} to {r}", "put {o} in/on {r}")
    old = old.replace("You move the {o.name} to the {r.name}.", "You put the {o.name} in/on the {r.name}.")
    assert old != content["grammar"]
    path = tmp_path / "old.tw-pddl"
    path.write_text(json.dumps(content | {"grammar": old}))
    for expert in ("oracle", "search", "hasty"):
        env = make(data=path, difficulty=None, expert=expert, max_steps=300)
        responses, _, infos = play(env, "old", limit=300)
        assert infos[-1]["success"]
        assert "put (object) in/on (receptacle)" in env.system_prompt and "move" not in env.system_prompt
        # Two are to be placed, and nothing is tried twice.
        assert sum(response.startswith("<action>put ") for response in responses) == 2


@pytest.mark.parametrize(("difficulty", "count"), [("easy", 30), ("medium", 18), ("full", 12)])
def test_the_search_wins_by_reading(difficulty, count):
    env = make(difficulty=difficulty, split="valid_seen", expert="search", max_steps=150)
    for task_id in env.task_ids[:count]:
        _, slips, infos = play(env, task_id, limit=150)
        assert infos[-1]["success"], task_id
        assert not any(slips)
        # Of places that share a pose it learns only by trying that it is there already.
        assert sum(info["invalid_action"] is not None for info in infos) <= 6


def test_the_search_order_is_the_episodes():
    env = make(expert="search")
    episodes = [play(env, "easy/train/00003", seed)[0] for seed in (1, 1, 2, 3)]
    assert episodes[0] == episodes[1]
    assert len({tuple(episode) for episode in episodes}) == 3


def test_the_search_reads_the_same_text_in_either_context():
    episodes = [play(make(expert="hasty", context=context), "easy/train/00005")[0] for context in ("rebuilt", "append")]
    assert episodes[0] == episodes[1]


@pytest.mark.parametrize(("expert", "max_steps"), [("search", 200), ("hasty", 200), ("heedless", 1000)])
def test_the_readers_recover_from_anything(expert, max_steps):
    env = make(difficulty="medium", expert=expert, max_steps=max_steps)
    rng = np.random.default_rng(1)
    for task_id in env.task_ids[:12]:
        env.reset(seed=0, options={"task_id": task_id})
        over = truncated = False
        for step in range(max_steps):
            text = env.expert_response()
            if step < 60 and step % 3:
                text = str(
                    rng.choice(
                        [
                            *(f"<action>{a}</action>" for a in env._admissible_actions()),
                            "?",
                            "<action>go to bed 9</action>",
                        ]
                    )
                )
            *_, over, truncated, info = env.step(text)
            if over or truncated:
                break
        assert info["success"], task_id


@pytest.mark.parametrize("expert", ["oracle", "search", "hasty"])
def test_asking_twice_changes_nothing_and_a_snapshot_keeps_the_mind(expert):
    env, other = make(expert=expert), make(expert=expert)
    expected = play(env, "easy/train/00011", seed=4)[0]
    env.reset(seed=4, options={"task_id": "easy/train/00011"})
    for response in expected:
        assert [env.expert_response(), env.expert_response()] == [response] * 2
        slip_now = env.expert_slip
        other.set_state(json.loads(json.dumps(env.get_state())))
        assert (other.expert_response(), other.expert_slip) == (response, slip_now)
        env.step(response)


@pytest.mark.parametrize(("expert", "least", "most"), [("hasty", 0.35, 0.85), ("heedless", 0.05, 0.3)])
def test_the_experts_with_a_fault_are_worse_but_not_hopeless(expert, least, most):
    env = make(expert=expert, split="valid_seen", protocol="verl-agent", max_steps=20)
    won = [play(env, task_id)[2][-1]["success"] for task_id in env.task_ids[:60]]
    assert least < np.mean(won) < most


def test_its_slips_do_nothing_and_are_owned_up_to():
    env = make(expert="hasty", max_steps=50)
    slips, steps = 0, 0
    for number, task_id in enumerate(env.task_ids[:40]):
        _, slipped, infos = play(env, task_id, seed=number)
        for slip_now, info in zip(slipped, infos, strict=True):
            steps += 1
            slips += slip_now
            assert not slip_now or info["invalid_action"] is not None
    assert WRONG / 2 < slips / steps < WRONG * 1.5


def test_a_slip_is_plausible():
    admissible = ("take mug 1 from desk 2", "go to bed 1")
    past = ["go to desk 2", "look"]
    drawn = {slip("take mug 1 from desk 2", past, admissible, 0, step) for step in range(2000)} - {None}
    expected = {f"take mug {number} from desk 2" for number in (2, 3, 4, 5)}
    expected |= {f"take mug 1 from desk {number}" for number in (1, 3, 4, 5)}
    assert drawn == expected | {"go to desk 2"}
    assert slip("look", ["look"], ("look",), 0, 0) is None


def test_the_hasty_expert_overlooks_and_leaves_places_closed():
    seen_and_left, closed_and_left, careful = 0, 0, {"search": 0, "hasty": 0}
    for expert in careful:
        env = make(expert=expert)
        for task_id in env.task_ids[:25]:
            responses, slips, _ = play(env, task_id, seed=2)
            goal = env._playing.goal
            texts = [exchange.feedback for exchange in env.history]
            for text, response, slipped in zip(texts, responses, slips, strict=True):
                walks = response.startswith("<action>go to") and not slipped
                if expert == "hasty":
                    closed_and_left += walks and text.endswith("is closed.")
                    seen_and_left += walks and f" {goal.object_type} " in text.partition("you see")[2][:400]
                elif walks and text.endswith("is closed."):
                    # Only to bring what it holds, or to fetch what it knows.
                    careful["search"] += 1
    assert careful["search"] == 0
    assert closed_and_left > 10
    assert seen_and_left > 10


def test_beliefs_follow_the_texts():
    feedbacks = [
        "You are in the middle of a room. Looking quickly around you, you see a desk 1, a drawer 2, and a drawer 1.\n\n"
        "Your task is to: put a hot mug in drawer.",
        "You arrive at drawer 1. The drawer 1 is closed.",
        "Nothing happens.",
        "You open the drawer 1. The drawer 1 is open. In it, you see a mug 1, and a pen 2.",
        "You pick up the mug 1 from the drawer 1.",
        "You close the drawer 1.",
        "Your response was not understood. You move the mug 1 to the desk 1.",
        "You cool the mug 1 using the fridge 1.",
        "You heat the mug 1 using the microwave 1.",
        "You arrive at desk 1. On the desk 1, you see nothing.",
        "Nothing happens.",
    ]
    commands = ["go to drawer 1", "go to drawer 2", "open drawer 1", "take mug 1 from drawer 1", "close drawer 1", None]
    commands += ["cool mug 1 with fridge 1", "heat mug 1 with microwave 1", "go to desk 1", "move mug 1 to desk 1"]
    memory = remember(feedbacks[:3], commands[:2])
    assert memory.here == ["drawer 1", "drawer 2"]
    assert memory.closed == {"drawer 1"}
    memory = remember(feedbacks, commands)
    assert memory.goal == Goal("pick_heat_then_place_in_recep", "mug", "drawer")
    assert memory.places == ("desk 1", "drawer 2", "drawer 1")
    assert memory.here == ["desk 1"]
    assert memory.holding == "mug 1"
    assert memory.contents == {"drawer 1": ["pen 2"], "desk 1": []}
    assert memory.closed == {"drawer 1"}
    assert memory.treated == {("heat", "mug 1")}
    assert memory.refused == {("mug", "desk")}


ROOM = (
    "You are in the middle of a room. Looking quickly around you, you see a desk 1, a drawer 2, and a drawer 1.\n\n"
    "Your task is to: "
)


@pytest.mark.parametrize(
    ("task", "past", "command"),
    [
        # A place that shares the pose of another was not seen yet.
        (
            "put a mug in bed.",
            [
                ("go to desk 1", "You arrive at desk 1. On the desk 1, you see nothing."),
                ("go to drawer 2", "Nothing happens."),
            ],
            "examine drawer 2",
        ),
        # What was seen in a place is still there when the place is closed.
        (
            "put a mug in desk.",
            [
                ("go to drawer 1", "You arrive at drawer 1. The drawer 1 is closed."),
                ("open drawer 1", "You open the drawer 1. The drawer 1 is open. In it, you see a mug 2."),
                ("close drawer 1", "You close the drawer 1."),
            ],
            "open drawer 1",
        ),
        # A closed place that cannot be opened is looked at.
        (
            "put a mug in desk.",
            [
                ("go to drawer 1", "You arrive at drawer 1. The drawer 1 is closed."),
                ("open drawer 1", "Nothing happens."),
            ],
            "examine drawer 1",
        ),
        # What fails is not tried again.
        (
            "look at mug under the desklamp.",
            [
                ("go to desk 1", "You arrive at desk 1. On the desk 1, you see a desklamp 1, and a mug 1."),
                ("take mug 1 from desk 1", "You pick up the mug 1 from the desk 1."),
                ("use desklamp 1", "Nothing happens."),
            ],
            "go to drawer ",
        ),
        # The wrong thing in hand is put down.
        (
            "put a mug in drawer.",
            [
                ("go to desk 1", "You arrive at desk 1. On the desk 1, you see a pen 1, and a mug 1."),
                ("take pen 1 from desk 1", "You pick up the pen 1 from the desk 1."),
            ],
            "move pen 1 to desk 1",
        ),
    ],
)
def test_decisions(task, past, command):
    memory = remember([ROOM + task, *(answer for _, answer in past)], [said for said, _ in past])
    assert search_command(memory, 0, len(past)).startswith(command)


def test_the_readers_say_when_they_cannot_read():
    memory = remember(["You see a bed 1.\n\nYour task is to: tidy up."], [])
    with pytest.raises(DataError, match="expert='oracle'"):
        search_command(memory, 0, 0)
