"""Starts: the same bytes however they are made, what a phase shows, the command, and runs that begin with one."""

from __future__ import annotations

import itertools
import json
import random
import re
import shutil
import signal
import time
from collections import Counter
from dataclasses import replace

import pytest
import torch
from forked import fork
from safetensors.torch import load_file

from steppo_gym.envs.alfworld.env import AlfworldEnv
from steppo_gym.errors import DataError
from steppo_gym.rollouts.demonstrations import MessageCodec, demonstrate
from steppo_gym.rollouts.env_host import EnvFactory
from steppo_gym.trainers.make_start import main
from steppo_gym.trainers.policy.chat import ChatCodec
from steppo_gym.trainers.policy.small_policy import SmallPolicyConfig, build_model, make_tokenizer, stop_token_ids
from steppo_gym.trainers.rules import StepPO
from steppo_gym.trainers.run.arguments import parse_arguments
from steppo_gym.trainers.run.launch import launch
from steppo_gym.trainers.run.presets import PRESETS
from steppo_gym.trainers.run.starts import SHIPPED, read_start, spread, start_of
from steppo_gym.trainers.warm_start.imitation import POOL, Imitation, conversations
from steppo_gym.trainers.warm_start.start import Excerpts, Lesson, Phase, StartRecipe, make_start, retold, start_hash

KEY_DOOR = "steppo/KeyDoor-v0"
READING = Phase("expert", num_updates=6, num_demonstrations=12, retold_share=0.0, batch_size=2)
TINY = StartRecipe(
    env_kwargs={"context": "append"},
    reading=READING,
    fault=replace(READING, expert="hasty", num_updates=2),
    policy=SmallPolicyConfig(hidden_size=16, num_layers=1, num_heads=2, vocab_size=320),
)
LONG = replace(TINY, reading=replace(READING, num_updates=230))


def make(folder, recipe=TINY, seed=0, said=None):
    return make_start(folder, KEY_DOOR, "train", recipe, seed=seed, say=[].append if said is None else said.append)


def test_equal_settings_make_equal_bytes_and_others_do_not(tmp_path):
    reader, start = make(tmp_path / "one")
    again = make(tmp_path / "two")
    assert start_hash(start) == start_hash(again[1]) != start_hash(reader) == start_hash(again[0])
    other_seed = make(tmp_path / "three", seed=1)[1]
    other_fault = make(tmp_path / "four", replace(TINY, fault=replace(TINY.fault, num_updates=3)))
    assert len({start_hash(folder) for folder in (start, other_seed, other_fault[1])}) == 3
    # The fault comes after the reading and does not touch it.
    assert start_hash(other_fault[0]) == start_hash(reader)


def test_a_start_can_be_made_from_another(tmp_path):
    first = make(tmp_path / "first")[1]
    again = replace(TINY, reading=replace(READING, num_updates=3))

    def made(name, seed, said=None):
        said = [].append if said is None else said.append
        return make_start(tmp_path / name, KEY_DOOR, "train", again, seed=seed, origin=first, say=said)

    one, two, same = made("one", 1), made("two", 2), made("same", 1)
    assert start_hash(one[1]) == start_hash(same[1])
    assert len({start_hash(folder) for folder in (first, one[0], one[1], two[1])}) == 4
    # The same tokenizer, and weights a few updates away: a new policy would share neither.
    assert (one[1] / "tokenizer.json").read_bytes() == (first / "tokenizer.json").read_bytes()
    began, ended, new = (load_file(f / "model.safetensors") for f in (first, one[0], make(tmp_path / "new", seed=1)[0]))
    distance = {which: sum((began[n] - w[n]).norm() for n in began) for which, w in (("from", ended), ("new", new))}
    assert 0 < distance["from"] < distance["new"] / 2
    # What was begun from one is not gone on with from another.
    shutil.copytree(tmp_path / "one", tmp_path / "other")
    shutil.copytree(one[1], first, dirs_exist_ok=True)
    said = []
    made("other", 1, said)
    assert "begun anew" in said[0]


def test_the_hash_is_of_names_and_contents(tmp_path):
    _, start = make(tmp_path / "one")
    usual = start_hash(start)
    (start / "card.json").write_text("{}")
    assert start_hash(start) == usual
    (start / "config.json").rename(start / "configuration.json")
    assert start_hash(start) != usual


def test_one_that_was_killed_goes_on_to_the_same_bytes(tmp_path):
    killed = fork(lambda: make(tmp_path / "one", LONG))
    while not (tmp_path / "one" / "reading-state.pt").exists():
        assert killed.poll() is None
        time.sleep(0.01)
    killed.kill(signal.SIGKILL)
    assert killed.returncode == -signal.SIGKILL
    said = []
    reader, start = make(tmp_path / "one", LONG, said=said)
    assert "reading: going on after update" in said[0]
    whole = make(tmp_path / "two", LONG)
    assert (start_hash(reader), start_hash(start)) == (start_hash(whole[0]), start_hash(whole[1]))


def test_one_of_other_settings_is_begun_anew(tmp_path):
    make(tmp_path / "one", seed=1)
    said = []
    start = make(tmp_path / "one", said=said)[1]
    assert "begun anew" in said[0]
    assert start_hash(start) == start_hash(make(tmp_path / "two")[1])


def test_more_demonstrations_than_tasks_are_of_all_in_turns_with_other_slips(tmp_path):
    tasks = len(AlfworldEnv(split="valid_unseen", difficulty="easy").task_ids)
    reading = replace(READING, expert="clumsy", num_updates=1, num_demonstrations=tasks + 20)
    recipe = replace(TINY, env_kwargs={"context": "append", "difficulty": "easy"}, reading=reading)
    make_start(tmp_path, "steppo/ALFWorld-v0", "valid_unseen", recipe, seed=0, say=[].append)
    shown = json.loads((tmp_path / "reading.json").read_text())
    once, again = shown[:20], shown[tasks:]
    assert [said[0]["observation"] for said in once] == [said[0]["observation"] for said in again]
    assert all(one != other for one, other in zip(once, again, strict=True))


def test_what_cannot_be_made_is_refused(tmp_path):
    with pytest.raises(NotImplementedError, match="KeyDoorEnv cannot tell episodes anew"):
        make(tmp_path / "one", replace(TINY, reading=replace(READING, retold_share=0.5)))
    with pytest.raises(ValueError, match="context must be 'append', got 'rebuilt'"):
        make(tmp_path / "two", replace(TINY, env_kwargs={"context": "rebuilt"}))
    with pytest.raises(ValueError, match="'expert' thinks in none of its demonstrations"):
        make(tmp_path / "three", replace(TINY, reading=replace(READING, excerpts=Excerpts(0.5, 6))))


@pytest.fixture(scope="module")
def lesson():
    """Of ALFWorld, with mistyped commands; every demonstration is told anew."""
    spec = EnvFactory("steppo/ALFWorld-v0", {"difficulty": "easy", "context": "append", "expert": "clumsy"})
    env, messages = spec.make(), MessageCodec()
    episodes = demonstrate(spec, env.task_ids[:12], messages, seed=0)
    shown = [said for episode in episodes for _, said in conversations(episode, messages)]
    texts = [text for said in shown for one in said for text in (one.observation, one.response)]
    tokenizer = make_tokenizer(texts, SmallPolicyConfig(vocab_size=400))
    codec = ChatCodec(tokenizer, stop_token_ids=stop_token_ids(tokenizer))
    return Lesson(shown, env, codec, Phase("clumsy", num_updates=1, retold_share=1.0, batch_size=4), seed=0)


def test_a_batch_depends_on_its_number_alone(lesson):
    fresh = Lesson(lesson.shown, lesson.env, lesson.codec, lesson.phase, seed=0)
    later = fresh.batch(POOL + 3)
    assert [lesson.batch(number) for number in (1, POOL + 3)] == [fresh.batch(1), later]
    assert lesson.batch(1) != lesson.batch(POOL + 1)
    assert Lesson(lesson.shown, lesson.env, lesson.codec, lesson.phase, seed=1).batch(1) != lesson.batch(1)
    assert all(len(lesson.batch(number)) == 4 for number in range(POOL))


def test_rows_of_like_length_meet(lesson):
    batches = [[len(row.token_ids) for row in lesson.batch(number)] for number in range(POOL)]
    spans = sorted((min(batch), max(batch)) for batch in batches)
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(spans))


def test_batches_that_are_parted_are_of_any_length(lesson):
    parted = Lesson(lesson.shown, lesson.env, lesson.codec, replace(lesson.phase, portions=2), seed=0)
    batches = [[len(row.token_ids) for row in parted.batch(number)] for number in range(POOL)]
    assert (
        sum(max(batch) - min(batch) for batch in batches) > POOL * (max(map(max, batches)) - min(map(min, batches))) / 4
    )
    # The same rows, in another order.
    assert sorted(itertools.chain.from_iterable(batches)) == sorted(
        len(row.token_ids) for number in range(POOL) for row in lesson.batch(number)
    )


def test_in_portions_an_update_is_the_same_but_for_rounding(lesson):
    rows = [row for number in range(2) for row in lesson.batch(number)]

    def updated(portions):
        model = build_model(lesson.codec.tokenizer, TINY.policy, seed=0)
        imitation = Imitation(model, num_updates=40, muon_learning_rate=0.02, adamw_learning_rate=3e-3, pad_token_id=0)
        return imitation.update(rows, portions), torch.cat([p.detach().flatten() for p in model.parameters()])

    start = torch.cat(
        [p.detach().flatten() for p in build_model(lesson.codec.tokenizer, TINY.policy, seed=0).parameters()]
    )
    loss, whole = updated(1)
    assert (whole - start).abs().max() > 1e-3
    for portions in (2, 3, 8, 20):
        other_loss, parted = updated(portions)
        assert other_loss == pytest.approx(loss, rel=1e-5)
        torch.testing.assert_close(parted, whole, rtol=0.0, atol=1e-4)


def test_demonstrations_are_told_anew_each_time(lesson):
    decode = lesson.codec.tokenizer.decode
    rows = [row for number in range(POOL) for row in lesson.batch(number)]
    told = {decode(row.token_ids) for row in rows}
    assert len(told) == len(rows) > len(lesson.shown)
    plain = Lesson(lesson.shown, lesson.env, lesson.codec, replace(lesson.phase, retold_share=0.0), seed=0)
    rows = [row for number in range(POOL) for row in plain.batch(number)]
    assert len({row.token_ids for row in rows}) <= len(lesson.shown) < len(rows)


@pytest.fixture(scope="module")
def thinking():
    """Of WebShop, whose expert thinks where it reads features; half of the updates are of excerpts."""
    kwargs = {"goals": "synthetic", "nouns": "words", "results_per_page": 4, "context": "append", "expert": "clumsy"}
    spec = EnvFactory("steppo/WebShop-v0", kwargs)
    env, messages = spec.make(), MessageCodec()
    episodes = demonstrate(spec, env.task_ids[:12], messages, seed=0)
    shown = [said for episode in episodes for _, said in conversations(episode, messages)]
    texts = [text for said in shown for one in said for text in (one.observation, one.response)]
    tokenizer = make_tokenizer(texts, SmallPolicyConfig(tokenizer="words"))
    codec = ChatCodec(tokenizer, stop_token_ids=stop_token_ids(tokenizer))
    phase = Phase("clumsy", 4 * POOL, retold_share=0.0, batch_size=2, portions=2, excerpts=Excerpts(0.5, 6))
    return Lesson(shown, env, codec, phase, seed=0)


def test_a_phase_begins_with_excerpts_in_which_the_expert_thinks(thinking):
    decode = thinking.codec.tokenizer.decode
    short = [row for number in range(2 * POOL) for row in thinking.batch(number)]
    whole = [row for number in range(2 * POOL, 4 * POOL) for row in thinking.batch(number)]
    assert len(short) == 3 * len(whole) == 3 * 2 * 2 * POOL
    said = {
        (one.observation, other.observation, other.response)
        for conversation in thinking.shown
        for one, other in zip(conversation[:1] * len(conversation), conversation[1:], strict=False)
        if other.response.startswith("<think>")
    }
    parts = {tuple(re.split(r"<\|assistant\|>|<\|user\|>", decode(row.token_ids))) for row in short}
    assert {(first, last, answer) for _, first, _, last, answer in parts} <= said
    assert len(parts) > len(said) / 2
    # All that counts there is what the expert says.
    for row in short:
        learnt = decode([t for t, weight in zip(row.token_ids, row.weights, strict=True) if weight])
        assert re.fullmatch(r"<action>.*</action><think>.*</think><action>.*</action>", learnt)
    assert min(decode(row.token_ids).count("<|user|>") for row in whole) > 2


def test_mistyped_commands_are_not_imitated(lesson):
    slips = sum(one.slip for said in lesson.shown for one in said)
    assert slips > 0
    plain = Lesson(lesson.shown, lesson.env, lesson.codec, replace(lesson.phase, retold_share=0.0), seed=0)
    row = max((row for number in range(POOL) for row in plain.batch(number)), key=lambda row: row.weights.count(0.0))
    silent = lesson.codec.tokenizer.decode(
        [token for token, weight in zip(row.token_ids, row.weights, strict=True) if weight == 0.0]
    )
    mistyped = {one.response for said in lesson.shown for one in said if one.slip}
    assert silent and all(f"{response}</action>" in mistyped for response in silent.split("</action>")[:-1])


def test_retelling_an_episode_leaves_its_slips_where_they_are(lesson):
    said = max(lesson.shown, key=lambda said: sum(one.slip for one in said))
    told = retold(said, AlfworldEnv(), random.Random(0))
    assert [one.slip for one in told] == [one.slip for one in said]
    assert told != said


COMMAND = ["--env", "alfworld", "--demonstrations", "16", "--updates", "2", "--tasks", "1"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A start by the command, in a folder that could be the package's own."""
    out = tmp_path_factory.mktemp("starts") / "alfworld-easy"
    preset = PRESETS["alfworld"]
    recipe = replace(preset.starts["alfworld-easy"], policy=TINY.policy)
    with pytest.MonkeyPatch.context() as patch:
        # Its own policy takes most of the time.
        patch.setitem(PRESETS, "alfworld", replace(preset, starts={"alfworld-easy": recipe}))
        # It has learnt nothing, so all of its episodes go on to the limit of steps.
        patch.setitem(PRESETS["alfworld"].small_policy_settings, "max_completion_length", 2)
        main([*COMMAND, "--out", str(out)])
    return out


def test_the_card_says_what_it_is(made):
    card = json.loads((made / "card.json").read_text())
    assert card["sha256"] == start_hash(made) == read_start(made).sha256
    assert card["command"] == (
        "python -m steppo_gym.trainers.make_start --env alfworld --name alfworld-easy --seed 0 "
        "--demonstrations 16 --updates 2 --tasks 1"
    )
    assert set(card["figures"]) == {f"{what}, {way}" for what in ("ceiling", "start") for way in ("greedy", "sampled")}
    assert all(set(scores) == {"valid_seen", "valid_unseen"} for scores in card["figures"].values())
    assert card["figures"]["start, greedy"]["valid_seen"]["metrics"].keys() >= {"success"}
    assert card["recipe"]["reading"]["num_updates"] == 2 and card["versions"]["torch"]
    assert not made.with_name("alfworld-easy.making").exists()


def test_shipped_starts_are_small():
    shipped = [folder for folder in SHIPPED.iterdir() if folder.is_dir()]
    assert {folder.name for folder in shipped} >= {"alfworld-easy"}
    for folder in shipped:
        assert sum(file.stat().st_size for file in folder.iterdir()) < 5_000_000, folder


def test_a_start_is_made_once(made, capsys):
    before = (made / "card.json").stat().st_mtime_ns
    main([*COMMAND, "--out", str(made)])
    assert "is complete; --remake makes it again" in capsys.readouterr().out
    assert (made / "card.json").stat().st_mtime_ns == before


def test_the_card_of_one_made_from_another_names_it(made, tmp_path, capsys):
    out = tmp_path / "alfworld-easy-1"
    with pytest.MonkeyPatch.context() as patch:
        preset = PRESETS["alfworld"]
        recipe = preset.starts["alfworld-easy"]
        quick = replace(recipe, fault=replace(recipe.fault, num_updates=2, batch_size=2))
        patch.setitem(PRESETS, "alfworld", replace(preset, starts={"alfworld-easy": quick}))
        patch.setitem(PRESETS["alfworld"].small_policy_settings, "max_completion_length", 2)
        main([*COMMAND, "--seed", "1", "--from", str(made), "--out", str(out)])
    card = json.loads((out / "card.json").read_text())
    assert card["name"] == "alfworld-easy-1" and card["from"] == {"name": "alfworld-easy", "sha256": start_hash(made)}
    assert f"--seed 1 --from {made} --demonstrations 16 --updates 2 --tasks 1" in card["command"]
    # It reads again for as long as it was told; the fault is not shortened with it.
    assert [card["recipe"][phase]["num_updates"] for phase in ("reading", "fault")] == [2, 2]
    assert read_start(out).name == "alfworld-easy-1"


def test_what_a_start_cannot_be_made_from_is_refused(made, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["--env", "alfworld", "--from", str(made), "--out", str(tmp_path / "out")])
    assert "--from needs --out, and --updates" in capsys.readouterr().err
    with pytest.raises(SystemExit, match=r"--from: .* was made for .*ALFWorld.*, expected one for .*HotpotQA"):
        main(["--env", "hotpotqa", "--from", str(made), "--updates", "1", "--out", str(tmp_path / "out")])
    with pytest.raises(SystemExit, match="is not the card of a start"):
        main(["--env", "alfworld", "--from", str(tmp_path), "--updates", "1", "--out", str(tmp_path / "out")])


@pytest.mark.parametrize("name", ["tasks", "demonstrations", "updates"])
def test_numbers_that_make_no_start_are_refused_before_it_is_begun(name, tmp_path, refused):
    with refused(f"--{name} must be at least 1, got 0"):
        main(["--env", "alfworld", f"--{name}=0", "--out", str(tmp_path / "out")])


@pytest.mark.parametrize("env", [env for env, preset in PRESETS.items() if preset.starts])
def test_a_start_is_for_the_usual_runs_of_its_task_and_its_experts_can_be_told_anew(env):
    preset = PRESETS[env]
    recipe = next(iter(preset.starts.values()))
    assert parse_arguments(StepPO, ["--env", env]).env_kwargs == recipe.env_kwargs
    for phase in recipe.phases.values():
        player = preset.spec(preset.train_split, {**recipe.env_kwargs, "expert": phase.expert}).make()
        observation, _ = player.reset(seed=0)
        texts = [observation, player.expert_response()]
        told = player.retold(texts, random.Random(0))
        assert len(told) == 2 and told != texts
        player.close()


def settings(*flags):
    return parse_arguments(StepPO, ["--env", "alfworld", *flags])


def test_runs_of_its_environments_begin_with_it(made, tmp_path):
    assert start_of(settings(), shipped=made.parent) == read_start(made)
    assert start_of(settings(), shipped=tmp_path) is None
    for flags in (
        ["--start", "warm"],
        ["--demonstrations", "7"],
        ["--warm_start_updates", "7"],
        ["--difficulty", "full"],
        ["--protocol", "verl-agent"],
        ["--action_format", "tool_call"],
        ["--model_name_or_path", "some/model"],
    ):
        assert start_of(settings(*flags), shipped=made.parent) is None, flags


def test_a_named_start_may_play_under_another_limit_of_steps(made):
    limit = ["--env_args", "max_steps=7"]
    assert start_of(settings("--start", str(made), *limit)) == read_start(made)
    assert start_of(settings(*limit), shipped=made.parent) is None


def test_a_start_that_does_not_fit_is_refused(made, tmp_path):
    with pytest.raises(SystemExit, match=r"was made for steppo/ALFWorld-v0 difficulty=easy .* this run is of .*=full"):
        start_of(settings("--start", str(made), "--difficulty", "full"))
    with pytest.raises(SystemExit, match="are of a warm start"):
        start_of(settings("--start", str(made), "--demonstrations", "7"))
    with pytest.raises(DataError, match="is not the card of a start"):
        start_of(settings("--start", str(tmp_path)))
    changed = shutil.copytree(made, tmp_path / "changed")
    (changed / "config.json").write_text("{}")
    with pytest.raises(DataError, match=r"are not those of its card: SHA-256 .* --start warm"):
        start_of(settings("--start", str(changed)))
    with pytest.raises(SystemExit, match=r"are not those of its card"):
        launch(StepPO, ["--env", "alfworld", "--start", str(changed), "--output_dir", str(tmp_path / "run")])


def test_a_run_records_what_it_began_with(made, tmp_path):
    launch(
        StepPO,
        [
            *["--env", "alfworld", "--start", str(made), "--output_dir", str(tmp_path / "run"), "--learning_rate", "0"],
            *["--iterations", "1", "--episodes_per_iteration", "2", "--updates_per_iteration", "1", "--num_slots", "2"],
            *["--test_tasks", "0", "--validation_tasks", "1", "--num_env_workers", "0", "--save_every", "0"],
            *["--max_completion_length", "2"],
        ],
    )
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["start"] == {"name": "alfworld-easy", "sha256": start_hash(made)}
    began, ended = (load_file(folder / "model.safetensors") for folder in (made, tmp_path / "run" / "final"))
    assert all(began[name].equal(ended[name]) for name in began)


def test_demonstrations_of_files_are_of_every_kind_that_they_are_sorted_by():
    tasks = [f"{kind}/{number}" for kind, size in (("look", 30), ("pick", 50), ("heat", 20)) for number in range(size)]
    chosen = spread(tasks, 20)
    assert Counter(task.partition("/")[0] for task in chosen) == {"look": 6, "pick": 10, "heat": 4}
    assert len(set(chosen)) == 20 and chosen == sorted(chosen, key=tasks.index)
    assert spread(tasks, 99) != tasks == spread(tasks, 100) == spread(tasks, 101)
    assert len(set(spread(tasks, 99))) == 99
