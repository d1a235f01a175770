import copy
import json
import os
import pickle
import random
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from steppo_gym.envs.alfworld.built_in.generate import generate_game
from steppo_gym.envs.alfworld.built_in.rooms import load_room
from steppo_gym.envs.alfworld.engine.downward import library_path, loadable_part
from steppo_gym.envs.alfworld.engine.game import NOTHING_HAPPENS, RESETS_PER_LOAD, FastEngine
from steppo_gym.envs.alfworld.engine.stock import StockEngine
from steppo_gym.envs.alfworld.splits import eligible_rooms
from steppo_gym.envs.alfworld.tasks import TASK_TYPES
from steppo_gym.errors import DataError, EpisodeOverError


def small_game(task_type, seed=0):
    """A game of a type, in the smallest room there is for it: textworld needs a second to load a large one."""
    room = min(eligible_rooms("train", "full", task_type), key=lambda number: len(load_room(number).receptacles))
    return generate_game(seed, room=room, task_type=task_type).game


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("compiled")


@pytest.fixture
def engine(folder):
    return FastEngine(folder)


@pytest.fixture(scope="module")
def stock():
    return StockEngine()


@pytest.fixture(scope="module")
def game():
    return small_game("pick_and_place_simple")


def explore(rng, state):
    """A command: often one that does more than walk, sometimes one that is not admissible."""
    if rng.random() < 0.1:
        return rng.choice(["", "  look ", "LOOK", "go to nowhere 1", "take mug 1", "help\n"])
    deeds = [command for command in state.admissible_commands if not command.startswith("go to")]
    return rng.choice(deeds if rng.random() < 0.6 else state.admissible_commands)


def assert_equal(ours, theirs, content, steps, rng):
    """Play both at random, then along the walkthrough and a little on, and compare all they say."""

    def both(call, *arguments):
        first, second = (getattr(engine, call)(*arguments) for engine in (ours, theirs))
        assert first == second, (call, arguments)
        return first

    both("load", content)
    both("names")
    state = both("reset")
    for _ in range(steps):
        state = both("step", explore(rng, state))
        both("facts")
    both("get_state")
    both("reset")
    for command in content.get("walkthrough") or []:
        state = both("step", command)
    assert state.won == bool(content.get("walkthrough"))
    for _ in range(3):
        state = both("step", explore(rng, state))
    both("facts")


@pytest.mark.parametrize("task_type", TASK_TYPES)
def test_both_engines_show_the_same(task_type, engine, stock):
    assert_equal(engine, stock, small_game(task_type), 15, random.Random(task_type))


@pytest.mark.data
def test_both_engines_show_the_same_of_a_real_game(shared_data, engine, stock):
    content = json.loads((shared_data / "alfworld" / "real_heat_potato_sinkbasin_14.tw-pddl").read_text())
    assert_equal(engine, stock, content, 25, random.Random(1))


def old_format(content):
    """A game as files of version 2.1.1 are: another verb, another arrival, no help."""
    grammar = content["grammar"][: content["grammar"].index("action help")]
    for new, old in [
        ("move {o} to {r}", "put {o} in/on {r}"),
        ("You move the {o.name} to the {r.name}.", "You put the {o.name} in/on the {r.name}."),
        ("You arrive at {r.name}.", "You arrive at {lend.name}."),
    ]:
        assert new in grammar
        grammar = grammar.replace(new, old)
    domain = content["pddl_domain"]
    start = domain.index("(:action help")
    walkthrough = [
        command.replace("move ", "put ").replace(" to ", " in/on ") if command.startswith("move ") else command
        for command in content["walkthrough"]
    ]
    return {
        "grammar": grammar,
        "pddl_domain": domain[:start] + ")",
        "pddl_problem": content["pddl_problem"],
        "walkthrough": walkthrough,
    }


def test_both_engines_show_the_same_of_a_game_in_the_old_format(game, engine, stock):
    content = old_format(game)
    assert_equal(engine, stock, content, 10, random.Random(2))
    assert "help" not in engine.reset().admissible_commands
    assert any(" in/on " in command for command in content["walkthrough"])


def test_both_engines_show_the_same_of_commands_that_change_with_the_state(game, engine, stock):
    stride = '"stride": [{"condition": "holdsany(a:agent)", "rhs": "carry it to"}, {"rhs": "go to"}],'
    grammar = game["grammar"].replace('template :: "go to [', 'template :: "#stride# [')
    grammar = grammar.replace('"notImplemented": [', f'{stride} "notImplemented": [')
    commands = [command.replace("go to", "carry it to") for command in game["walkthrough"]]
    taken = next(place for place, command in enumerate(commands) if command.startswith("take"))
    commands[:taken] = game["walkthrough"][:taken]
    assert_equal(engine, stock, {**game, "grammar": grammar, "walkthrough": commands}, 10, random.Random(3))
    assert any(command.startswith("carry it to") for command in commands)


def test_the_introduction_ends_with_the_goal_and_help_inventory_look_are_admissible(game, engine):
    engine.load(game)
    state = engine.reset()
    assert state.feedback.startswith("-= Welcome to TextWorld, ALFRED! =-\n\nYou are in the middle of a room.")
    assert "\n\nYour task is to: " in state.feedback
    assert {"help", "inventory", "look"} <= set(state.admissible_commands)
    assert list(state.admissible_commands) == sorted(set(state.admissible_commands))
    assert not state.won


def test_winning_is_seen_and_can_be_undone(game, engine):
    engine.load(game)
    engine.reset()
    for command in game["walkthrough"]:
        state = engine.step(command)
    assert state.won
    verb, rest = game["walkthrough"][-1].split(" ", 1)
    thing, place = rest.split(" to ")
    assert verb == "move"
    assert not engine.step(f"take {thing} from {place}").won


def hostile_commands():
    rng = random.Random(8)
    yield from [
        "",
        "\0",
        "look\0",
        "\ud800",
        "look\udfff",
        "a" * 10_000_000,
        "look\u2028",
        "\u202elook",
        "{0.__class__}",
        "%s%n",
    ]
    yield from [
        "{r}",
        "{r.name}",
        "#look.feedback#",
        "help; help",
        "__import__('os')",
        "look\nlook",
        "\x1b[2J",
        "Look",
        "look.",
    ]
    alphabet = [
        chr(code) for code in (*range(128), 0xA0, 0xDF, 0x130, 0x2028, 0xD800, 0xDFFF, 0xFFFF, 0x1F600, 0x10FFFF)
    ]
    words = ["look", "go", "to", "take", "drawer", "1", "from", " ", "examine", "desk"]
    for _ in range(10_000):
        yield "".join(rng.choices([*alphabet, *words], k=rng.randrange(1, 30)))


def test_hostile_commands_change_nothing(game, engine):
    engine.load(game)
    engine.reset()
    for command in game["walkthrough"][:-1]:
        state = engine.step(command)
    facts, history = engine.facts(), engine.get_state()
    for command in hostile_commands():
        if command.strip() not in state.admissible_commands:
            assert engine.step(command) == type(state)(NOTHING_HAPPENS, state.admissible_commands, False)
    assert (engine.facts(), engine.get_state()) == (facts, history)
    assert engine.step(game["walkthrough"][-1]).won


def test_a_reset_forgets_the_episode_however_often(game, engine):
    engine.load(game)
    first = engine.reset()
    rng = random.Random(4)
    for _ in range(2 * RESETS_PER_LOAD + 1):
        state, facts = first, engine.facts()
        for _ in range(2):
            state = engine.step(explore(rng, state))
        assert engine.reset() == first
        assert engine.facts() == facts
        assert engine.get_state() == []


def test_a_snapshot_holds_the_commands_that_did_something_and_restores_the_state(game, engine, folder):
    engine.load(game)
    engine.reset()
    rng, state = random.Random(5), engine.reset()
    for _ in range(12):
        state = engine.step(explore(rng, state))
    state = engine.step("look")
    engine.step("nonsense")
    snapshot = json.loads(json.dumps(engine.get_state()))
    assert snapshot[-1] == "look"
    assert len(snapshot) < 14
    other = FastEngine(folder)
    other.load(game)
    assert other.set_state(snapshot) == state
    assert other.facts() == engine.facts()
    assert other.get_state() == snapshot
    assert other.set_state([]) == engine.reset()
    with pytest.raises(DataError, match="'fly' is not admissible after"):
        other.set_state(["look", "fly"])


def test_the_stock_engine_keeps_the_same_snapshots(game, stock, engine):
    engine.load(game)
    state = engine.set_state(game["walkthrough"][:2])
    stock.load(game)
    assert stock.set_state(game["walkthrough"][:2]) == state
    assert stock.get_state() == engine.get_state() == game["walkthrough"][:2]
    with pytest.raises(DataError, match="'fly' is not admissible after"):
        stock.set_state(["fly"])


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda engine: pickle.loads(pickle.dumps(engine))])
def test_copies_go_on_from_the_same_state_and_independently(game, engine, clone):
    clone(engine)
    engine.load(game)
    with pytest.raises(EpisodeOverError):
        clone(engine).step("look")
    engine.set_state(game["walkthrough"][:1])
    twin = clone(engine)
    assert twin.facts() == engine.facts()
    assert twin.step(game["walkthrough"][1]) != engine.step("inventory")
    assert twin.get_state() == game["walkthrough"][:2]
    assert engine.step(game["walkthrough"][1]).admissible_commands == twin.step("look").admissible_commands


def test_copies_of_the_stock_engine_go_on_too(game, stock):
    stock.load(game)
    stock.reset()
    stock.step(game["walkthrough"][0])
    twin = pickle.loads(pickle.dumps(stock))
    assert twin.step(game["walkthrough"][1]) == stock.step(game["walkthrough"][1])
    with pytest.raises(EpisodeOverError):
        copy.deepcopy(StockEngine()).reset()


def play(engine, content, seed, steps=25):
    engine.load(content)
    rng = random.Random(seed)
    states = [engine.reset()]
    for _ in range(steps):
        states.append(engine.step(explore(rng, states[-1])))
    return states


def test_engines_played_in_turns_do_not_disturb_each_other(folder):
    games = [small_game(task_type, seed) for task_type in TASK_TYPES[:2] for seed in (1, 2)]
    alone = [play(FastEngine(folder), content, 6) for content in games]
    engines = [FastEngine(folder) for _ in games]
    rngs = [random.Random(6) for _ in games]
    for engine, content in zip(engines, games, strict=True):
        engine.load(content)
    states = [[engine.reset()] for engine in engines]
    for _ in range(25):
        for engine, rng, seen in zip(engines, rngs, states, strict=True):
            seen.append(engine.step(explore(rng, seen[-1])))
    assert states == alone


def test_threads_with_an_engine_each_see_what_one_thread_sees(tmp_path, folder):
    games = [small_game(task_type, seed) for task_type in TASK_TYPES[:3] for seed in (3, 4)]
    alone = [play(FastEngine(folder), content, 7) for content in games]
    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(lambda content: play(FastEngine(tmp_path), content, 7), games)) == alone


def test_a_fork_goes_on_in_parent_and_child(game, engine):
    engine.load(game)
    engine.reset()
    engine.step(game["walkthrough"][0])
    rest = game["walkthrough"][1:]
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        won = [engine.step(command) for command in rest][-1].won
        os.write(writer, b"won" if won else b"not")
        os._exit(0)
    assert [engine.step(command) for command in rest][-1].won
    os.waitpid(child, 0)
    assert os.read(reader, 3) == b"won"
    os.close(reader)
    os.close(writer)


@pytest.mark.parametrize("make", [FastEngine, StockEngine])
def test_calls_out_of_order_say_what_to_call_first(make, game):
    engine = make()
    for call in (engine.reset, engine.names):
        with pytest.raises(EpisodeOverError, match=r"Call load\(game\)"):
            call()
    for _ in range(2):
        engine.load(game)
        for call in (lambda: engine.step("look"), engine.facts, engine.get_state):
            with pytest.raises(EpisodeOverError, match=r"Call reset\(\)"):
                call()
        engine.reset()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"grammar": None}, "'grammar', which is of type NoneType"),
        ({"pddl_domain": 3}, "'pddl_domain', which is of type int"),
        ({"pddl_problem": "(define"}, "can not be translated"),
        ({"grammar": "nonsense"}, "can not be read"),
    ],
)
def test_a_game_that_can_not_be_played_is_refused_and_the_loaded_one_stays(game, engine, change, message):
    engine.load(game)
    before = engine.reset()
    with pytest.raises(DataError, match=message):
        engine.load({**game, **change})
    assert engine.step("look").admissible_commands == before.admissible_commands
    with pytest.raises(DataError, match="'pddl_domain', which is missing"):
        engine.load({})


def test_an_action_without_words_is_an_error(game, engine):
    engine.load({**game, "grammar": game["grammar"].replace("action look {", "action gaze {")})
    with pytest.raises(DataError, match="no text for the action 'look'"):
        engine.reset()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_libraries_and_memory_are_reused(folder, game):
    def libraries():
        with open("/proc/self/maps") as maps:
            return len({line.split()[-2] for line in maps if "libdownward" in line})

    def resident():
        with open("/proc/self/statm") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    play(FastEngine(folder), game, 0, 3)
    play(FastEngine(folder), game, 0, 3)
    before, size = libraries(), resident()
    games = [small_game(task_type) for task_type in TASK_TYPES]
    for number in range(300):
        play(FastEngine(folder), games[number % len(games)], number, 3)
    assert libraries() == before
    assert resident() - size < 50e6


def test_the_part_of_the_library_that_is_loaded_is_small():
    whole = library_path().stat().st_size
    assert len(loadable_part(library_path())) < whole / 10


def test_a_library_of_another_format_is_copied_whole(tmp_path):
    (tmp_path / "lib").write_bytes(b"\xcf\xfa\xed\xfe" + bytes(100))
    assert loadable_part(tmp_path / "lib") == b"\xcf\xfa\xed\xfe" + bytes(100)


TRACES = """
import os, random, sys
import steppo_gym.envs.alfworld.engine.game
from steppo_gym.envs.alfworld.engine.{module} import {name}
import json, pathlib
content = json.loads(pathlib.Path(sys.argv[1]).read_text())
before = random.getstate(), list(sys.argv), dict(os.environ), sys.stdout, sys.stderr
engine = {name}(*map(pathlib.Path, sys.argv[2:]))
engine.load(content)
engine.reset()
engine.step("look")
assert before == (random.getstate(), sys.argv, dict(os.environ), sys.stdout, sys.stderr)
assert ("alfworld" in sys.modules) == ({name!r} == "StockEngine")
"""


@pytest.mark.parametrize(("module", "name"), [("game", "FastEngine"), ("stock", "StockEngine")])
def test_playing_leaves_no_traces(module, name, game, tmp_path):
    (tmp_path / "game.json").write_text(json.dumps(game))
    (tmp_path / "home").mkdir()
    (tmp_path / "temporary").mkdir()
    environment = {"HOME": str(tmp_path / "home"), "TMPDIR": str(tmp_path / "temporary"), "PATH": os.environ["PATH"]}
    result = subprocess.run(
        [
            sys.executable,
            "-c",
            TRACES.format(module=module, name=name),
            str(tmp_path / "game.json"),
            *([str(tmp_path / "cache")] if name == "FastEngine" else []),
        ],
        env=environment,
        capture_output=True,
        check=False,
        cwd=tmp_path,
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, b"", b"")
    assert list((tmp_path / "home").iterdir()) == []
    assert list((tmp_path / "temporary").iterdir()) == []


def test_a_game_with_a_hostile_grammar_is_refused(game, engine, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    grammar = game["grammar"].replace("{r.name}", "{__import__('os').mkdir('hacked') or r.name}")
    assert grammar != game["grammar"]
    with pytest.raises(DataError, match="not supported"):
        engine.load({**game, "grammar": grammar})
    assert list(tmp_path.iterdir()) == []
