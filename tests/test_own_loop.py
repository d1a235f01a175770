"""A loop of one's own around the package: what is easily got wrong is said in one line, and what is right works."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys

import gymnasium
import numpy as np
import pytest
import torch
from rollout_envs import WalkEnv
from transformers import Qwen3Config, Qwen3ForCausalLM

from steppo_gym import ByteCodec, DataError, Episode, Failure, Policy, Request, Response, ScriptedPolicy, Step
from steppo_gym.audit.continuations import Plan, Table
from steppo_gym.audit.mixtures import NoisyExpert
from steppo_gym.audit.study import run_audit
from steppo_gym.credit import Records, gigpo_advantages, group_advantages, state_groups
from steppo_gym.credit.rows import build_rows
from steppo_gym.evaluation.chat_server import ChatServerPolicy
from steppo_gym.evaluation.comparing import paired
from steppo_gym.evaluation.panels import open_panel, read_panel, write_panel
from steppo_gym.evaluation.playing import Playing
from steppo_gym.evaluation.scores import success_interval
from steppo_gym.rollouts import Assignment, EnvFactory, EnvPool, MessageCodec, collect
from steppo_gym.trainers.policy.generation import ModelPolicy
from steppo_gym.trainers.results.saved_policy import SavedPolicy
from steppo_gym.trainers.rules import GRPO, PPO, StepPO
from steppo_gym.trainers.run.report import read_metrics
from steppo_gym.view.run_folder import open_runs


def episode(group, *rewards):
    steps = tuple(Step((1, 2), (3, 4), None, "", reward, f"state {place}") for place, reward in enumerate(rewards))
    return Episode("task", steps, "terminated", group=group)


FOUR = [episode(0, 0.0, 1.0), episode(0, 0.0), episode(1, 0.0, 0.0, 1.0), episode(1, 0.0)]


class TestCredit:
    def test_groups_in_a_tensor_are_refused_as_no_two_of_its_entries_are_equal(self):
        ids = torch.tensor([0, 0, 1, 1])
        with pytest.raises(TypeError, match=r"^group_ids must have .* found Tensor. Use group_ids.tolist\(\)\.$"):
            group_advantages([1.0, 0.0, 0.0, 1.0], ids)
        with pytest.raises(TypeError, match=r"^group_ids must have"):
            gigpo_advantages([0.0, 1.0, 0.0, 0.0], ["a"] * 4, list(ids), steps_per_episode=[1] * 4, gamma=0.9)
        expected = group_advantages([1.0, 0.0, 0.0, 1.0], ids.tolist())
        assert expected.any() and (group_advantages([1.0, 0.0, 0.0, 1.0], ids.numpy()) == expected).all()

    def test_states_in_a_tensor_are_refused(self):
        with pytest.raises(TypeError, match=r"^state_keys must have .* found Tensor"):
            state_groups(torch.zeros(3, dtype=torch.long), [0], steps_per_episode=[3])

    def test_episodes_may_come_from_an_iterator(self):
        records, again = Records(iter(FOUR)), Records(FOUR)
        assert records.rewards.tolist() == again.rewards.tolist() and records.group_ids == again.group_ids
        assert (GRPO()(records).advantages == GRPO()(again).advantages).all()
        assert len(build_rows(iter(FOUR))) == len(build_rows(FOUR)) > 0

    def test_episodes_that_failed_are_refused(self):
        failed = dataclasses.replace(FOUR[1], ended="failed", failure=Failure("search", "down"))
        with pytest.raises(ValueError, match=r"^Episode 1 failed; leave failed episodes out"):
            Records([FOUR[0], failed])

    @pytest.mark.parametrize(("rule", "decisions"), [(StepPO(), 7), (PPO(), 14)])
    def test_values_that_lack_those_of_the_final_states_are_refused(self, rule, decisions):
        message = f"each of the {decisions} decisions .* each of the 4 episodes, got {decisions}"
        with pytest.raises(ValueError, match=message):
            rule(Records(FOUR, np.zeros(decisions)))
        assert rule(Records(FOUR, np.zeros(decisions + 4))).advantages.shape == (decisions,)


CODEC = ByteCodec()
KEY_DOOR = EnvFactory("steppo/KeyDoor-v0", {"max_steps": 3})
ONE = (Assignment("train-0", seed=0),)


class Own:
    """A policy of one's own that answers with what a function makes of each request."""

    needs_expert = False

    def __init__(self, answer):
        self.answer = answer

    def respond(self, requests):
        return [self.answer(request) for request in requests]


@pytest.fixture(scope="module")
def pool():
    with EnvPool(KEY_DOOR, num_slots=2) as pool:
        yield pool


class TestRollouts:
    def play(self, policy, pool, todo=ONE, codec=CODEC):
        return collect(policy, pool, codec, todo).episodes

    def test_a_policy_without_its_members_is_told_which(self, pool):
        class Half:
            def respond(self, requests):
                return [Response(CODEC.encode_response("x")) for _ in requests]

        with pytest.raises(TypeError, match=r"Half has no needs_expert"):
            self.play(Half(), pool)
        with pytest.raises(TypeError, match="function has no respond"):
            self.play(lambda requests: requests, pool)

        class Whole(Half, Policy):
            pass

        assert self.play(Whole(), pool)[0].num_steps == 3

    @pytest.mark.parametrize(
        ("ids", "log_probs", "message"),
        [
            ([1, 2], None, "token_ids of a Response must be a tuple of ints, found list"),
            (torch.tensor([1, 2]), None, "found Tensor"),
            (tuple(torch.tensor([1, 2])), None, "found tuple with Tensor"),
            (tuple(np.array([1, 2])), None, "found tuple with int64"),
            ((1, 2), [-0.5, -0.5], "log_probs of a Response must be a tuple of floats, found list"),
            ((1, 2), tuple(np.array([-0.5, -0.5], np.float32)), "found tuple with float32"),
        ],
    )
    def test_a_response_of_other_numbers_is_refused_where_it_is_made(self, ids, log_probs, message):
        with pytest.raises(TypeError, match=f"{message}.*tolist"):
            Response(ids, log_probs)
        json.dumps(dataclasses.asdict(Response((1, 2), (-0.5, -1))))

    def test_what_is_no_response_is_named_and_a_generator_will_do(self, pool):
        with pytest.raises(TypeError, match="must give a Response for each request, gave str"):
            self.play(Own(lambda request: "<action>read note</action>"), pool)

        class Lazy(Own):
            def respond(self, requests):
                yield from super().respond(requests)

        assert self.play(Lazy(lambda request: Response(CODEC.encode_response("x"))), pool)[0].num_steps == 3

    def test_tasks_alone_are_no_assignments_and_an_iterator_of_assignments_will_do(self, pool):
        policy = ScriptedPolicy(["x"], CODEC)
        with pytest.raises(TypeError, match=r"list of Assignment\(task_id, seed=..\), found str"):
            self.play(policy, pool, ["train-0"])
        assert len(self.play(policy, pool, (Assignment(f"train-{i}", seed=0) for i in range(3)))) == 3

    def test_a_closed_pool_plays_no_more(self):
        with EnvPool(KEY_DOOR, num_slots=1, num_workers=1) as pool:
            self.play(ScriptedPolicy(["x"], CODEC), pool)
        with pytest.raises(ValueError, match=r"^The pool is closed"):
            self.play(ScriptedPolicy(["x"], CODEC), pool)

    def test_a_pool_is_made_of_a_factory(self):
        with pytest.raises(TypeError, match=r"spec must be an EnvFactory, such as .*, found str"):
            EnvPool("steppo/KeyDoor-v0", num_slots=1)

    def test_an_id_that_only_this_process_knows_is_explained(self):
        gymnasium.register("own_loop/Here-v0", entry_point="steppo_gym.envs.key_door.env:KeyDoorEnv")
        try:
            with pytest.raises(gymnasium.error.UnregisteredEnv, match='write "module:own_loop/Here-v0"'):
                EnvPool(EnvFactory("own_loop/Here-v0"), num_slots=1, num_workers=1)
        finally:
            del gymnasium.registry["own_loop/Here-v0"]

    def test_a_chat_policy_beside_another_codec_is_refused(self, pool):
        with ChatServerPolicy("http://127.0.0.1:9/v1", "m", max_tokens=4) as policy:
            with pytest.raises(ValueError, match=r"with the codec ChatTextCodec\(\)"):
                self.play(policy, pool)
            with pytest.raises(ValueError, match="with the codec"):
                policy.respond([Request(0, ())])

    def test_a_model_with_fewer_slots_than_the_pool_is_refused(self, pool):
        sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "head_dim": 8}
        model = Qwen3ForCausalLM(Qwen3Config(vocab_size=257, num_attention_heads=1, num_key_value_heads=1, **sizes))
        policy = ModelPolicy(model, num_slots=1, stop_token_ids=(256,), pad_token_id=256, max_response_tokens=2)
        todo = [Assignment("train-0", seed=seed) for seed in range(2)]
        with pytest.raises(
            ValueError, match=r"has 1 slots and is asked for slot 1. Make it with num_slots=pool.num_sl"
        ):
            self.play(policy, pool, todo)

    def test_a_function_of_texts_is_a_policy(self, pool):
        codec, seen = MessageCodec(), []

        def answer(request):
            seen.append([codec.text(token) for token in request.prompt_ids])
            return Response(codec.encode_response("<action>read note</action>"))

        (episode,) = self.play(Own(answer), pool, codec=codec)
        assert [step.response for step in episode.steps] == ["<action>read note</action>"] * 3
        assert [len(texts) for texts in seen] == [2] * 3
        assert seen[0][0] == pool.system_prompt and seen[0][1].startswith("Goal:")


class TestResults:
    def test_files_and_folders_may_be_named_by_texts(self, pool, tmp_path):
        panel = open_panel("key_door-test").first(2)
        write_panel(panel, f"{tmp_path}/panel.json")
        assert read_panel(f"{tmp_path}/panel.json") == panel
        playing = Playing(panel, tries=1, file=f"{tmp_path}/episodes.jsonl")
        policy = NoisyExpert(CODEC, 0.5)
        with EnvPool(EnvFactory(panel.environment, panel.source.arguments), num_slots=2) as own:
            assert len(playing.run(policy, own, CODEC, show=False)) == 2
        table = Table(policy, pool, CODEC, KEY_DOOR.make())
        sizes = {"episodes_per_task": 2, "points": 1, "seed": 0}
        audited = run_audit(table, ["train-0"], Plan(2), f"{tmp_path}/audit", settings={"policy": "own"}, **sizes)
        assert len(audited.points) == 1
        (tmp_path / "metrics.jsonl").write_text('{"update": 1, "success": 0.5}\n')
        assert read_metrics(f"{tmp_path}/metrics.jsonl") == [{"update": 1, "success": 0.5}]
        assert open_runs([str(tmp_path)])[0].folder == tmp_path
        with pytest.raises(DataError, match="Expected the folder of a model"):
            SavedPolicy.open(str(tmp_path))

    def test_outcomes_without_lists_of_tries_are_refused(self):
        with pytest.raises(TypeError, match=r"^outcomes must have a list of tries for each task: \[\[True\], "):
            success_interval([True, False])

    def test_pairs_of_other_tasks_are_refused(self):
        with pytest.raises(ValueError, match=r"found \(3, 1\) and \(2, 1\)\.$"):
            paired([[True], [False], [True]], [[True], [False]])


class TestEnvironment:
    class Wrong(WalkEnv):
        def _apply(self, response):
            return response

    def test_a_transition_of_another_kind_is_named(self):
        env = self.Wrong()
        env.reset(seed=0)
        with pytest.raises(TypeError, match=r"Wrong._apply must return a steppo_gym.Transition, got str\.$"):
            env.step("x")

    def test_an_environment_without_tasks_says_so(self):
        env = WalkEnv()
        env.task_ids = []
        with pytest.raises(ValueError, match="WalkEnv has no task to draw: its task_ids are empty"):
            env.reset(seed=0)


def test_the_blocks_of_the_page_run(repository, tmp_path):
    text = (repository / "docs" / "own_loop.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "-c", "\n".join(blocks)],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == f"32 {['truncated'] * 8}" and "torch.Size([8, 4])" in lines and lines[-1] == "[]"
