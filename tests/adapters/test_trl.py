"""Through TRL's own trainer an expert's responses give what they give through `gymnasium.make`."""

from __future__ import annotations

import os
from dataclasses import replace

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")

import pytest
import torch
from chat_expert import scripted
from chat_families import family_model, family_tokenizer
from datasets import Dataset
from expert_play import play_expert
from transformers import Qwen3ForCausalLM
from transformers.utils import get_json_schema
from trl import GRPOConfig, GRPOTrainer
from trl.chat_template_utils import add_response_schema, qwen3_chat_template

from steppo_gym.adapters.trl import environment_class, rows, score
from steppo_gym.errors import EpisodeOverError, InfrastructureError, UnknownTaskError

TOOLS = {"action_format": "tool_call", "context": "append"}
pytestmark = pytest.mark.filterwarnings("ignore")


class ReplayModel(Qwen3ForCausalLM):
    """Writes what an expert wrote in the conversation that it is given."""

    def generate(self, input_ids, **_):
        texts = self.tokenizer.batch_decode(input_ids)
        said = [self.tokenizer(self.say(text) + "<|im_end|>")["input_ids"] for text in texts]
        longest = max(map(len, said))
        pad = self.tokenizer.pad_token_id
        written = torch.tensor([ids + [pad] * (longest - len(ids)) for ids in said])
        return torch.cat([input_ids, written], dim=1)

    def say(self, text):
        parts = [part.split("<|im_end|>")[0].partition("\n") for part in text.split("<|im_start|>")[1:]]
        shown = [{"role": role, "content": content} for role, _, content in parts[:-1]]
        shown = [m for m in shown if not m["content"].strip().startswith("<tool_response>")]
        return scripted(self.episodes, shown)


@pytest.fixture
def tokenizer():
    return add_response_schema(family_tokenizer("qwen3", chat_template=qwen3_chat_template))


@pytest.fixture
def train(tokenizer, tmp_path):
    """One step of TRL's trainer on some episodes: the conversations, scores and environments of its rollout."""

    def run(env_id, episodes, seed=5, **arguments):
        plain = family_model("qwen3", tokenizer, max_position_embeddings=8192)
        model = ReplayModel(plain.config)
        model.load_state_dict(plain.state_dict())
        model.tokenizer, model.episodes = tokenizer, episodes
        seen = {}

        def kept(completions, environments, **columns):
            seen["scores"] = score(completions, environments)
            seen["completions"] = completions
            seen["environments"] = list(environments)
            return seen["scores"]

        trainer = GRPOTrainer(
            model, reward_funcs=[kept], processing_class=tokenizer,
            train_dataset=Dataset.from_list(rows(env_id, [e.task_id for e in episodes], seed=seed, **arguments)),
            environment_factory=environment_class(env_id, **arguments),
            args=GRPOConfig(
                output_dir=str(tmp_path / "run"), max_steps=1, num_generations=2, report_to="none", use_cpu=True,
                per_device_train_batch_size=2 * len(episodes), max_completion_length=4096, shuffle_dataset=False,
                save_strategy="no", disable_tqdm=True, bf16=False, max_tool_calling_iterations=20,
            ),
        )  # fmt: skip
        trainer.train()
        return seen

    return run


def observations(messages):
    return [m["content"] for m in messages if m["role"] == "tool"]


@pytest.mark.parametrize(
    ("env_id", "arguments", "task_ids"),
    [
        ("steppo/KeyDoor-v0", {}, ["train-3", "train-4"]),
        ("steppo/ALFWorld-v0", {"difficulty": "easy"}, [None]),
        ("steppo/HotpotQA-v0", {}, [None]),
    ],
    ids=["key_door", "alfworld", "hotpotqa"],
)
def test_an_expert_plays_the_same_episodes(train, env_id, arguments, task_ids):
    episodes = [play_expert(env_id, t, seed=5 + i, **arguments, **TOOLS) for i, t in enumerate(task_ids)]
    # The model speaks once more after the end, as it does in TRL unless it has learnt not to.
    heard = [replace_end(e) for e in episodes]
    seen = train(env_id, heard, **arguments)
    for i, environment in enumerate(seen["environments"]):
        played = next(e for e in episodes if e.task_id == environment.env.task_id)
        assert seen["scores"][i] == pytest.approx(played.total)
        assert environment.ending == played.ending == "terminated"
        called = [o for r, o in zip(played.responses, played.observations, strict=True) if "<tool_call>" in r]
        assert observations(seen["completions"][i]) == called
        assert environment.env.num_steps == len(played.responses)
        assert environment.env._success() is played.success is True


def replace_end(played):
    """The episode with a last word, where its last response was a call and not an answer."""
    last = () if "<tool_call>" not in played.responses[-1] else ("Done.",)
    return replace(played, responses=(*played.responses, *last))


def test_the_schemas_are_the_environments_own():
    environment = environment_class("steppo/PaperSearch-v0")()
    environment.reset(seed=0)
    for tool in environment.env.tools:
        schema = get_json_schema(getattr(environment, tool["function"]["name"]))
        schema["function"].pop("return")
        assert schema == tool


def test_a_call_with_any_argument_is_a_step():
    environment = environment_class("steppo/KeyDoor-v0")()
    environment.reset(task_id="train-3")
    for number, given in enumerate([{}, {"self": "read note"}, {"action": ["read note"]}], start=1):
        assert "Expected the single argument" in environment.action(**given)
        assert environment.env.num_steps == number


def test_a_limit_of_the_task_ends_the_episode_and_not_the_conversation():
    environment = environment_class("steppo/KeyDoor-v0", max_steps=2)()
    environment.reset(task_id="train-3")
    for _ in range(2):
        environment.action(action="read note")
    assert environment.ending == "truncated"
    with pytest.raises(EpisodeOverError):
        environment.action(action="read note")
    assert score([[{"role": "assistant", "content": "I give up"}]], [environment]) == [0.0]


def test_a_last_word_is_a_step():
    environment = environment_class("steppo/KeyDoor-v0", invalid_action_reward=-0.25)()
    environment.reset(task_id="train-3")
    assert score([[{"role": "assistant", "content": "I give up"}]], [environment]) == [-0.25]
    assert environment.env.num_steps == 1 and environment.ending is None


def test_a_failed_episode_is_never_scored(monkeypatch):
    environment = environment_class("steppo/KeyDoor-v0")()
    environment.reset(task_id="train-3")

    def broken(action):
        raise InfrastructureError("search", "the server is gone")

    monkeypatch.setattr(environment.env, "step", broken)
    with pytest.raises(InfrastructureError):
        environment.action(action="read note")
    with pytest.raises(InfrastructureError, match="the server is gone"):
        score([[{"role": "assistant", "content": "Done."}]], [environment])
    environment.reset(task_id="train-3")
    assert environment.failure is None


def test_what_a_growing_conversation_cannot_serve_is_refused():
    with pytest.raises(ValueError, match="context is always 'append', got 'rebuilt'"):
        environment_class("steppo/KeyDoor-v0", context="rebuilt")


@pytest.mark.parametrize("task_ids", [[0, 1], ["validation-0", "train-0"], "validation-0"])
def test_rows_are_of_tasks_that_there_are(task_ids):
    with pytest.raises(UnknownTaskError, match=r"Unknown task_id (0, which is no text|'train-0'|'v')"):
        rows("steppo/KeyDoor-v0", task_ids, split="validation")
