"""Demonstrations: episodes of an expert whose responses are corrupted now and then."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from steppo_gym.rollouts.codec import ByteCodec
from steppo_gym.rollouts.demonstrations import CorruptedExpert, MessageCodec, demonstrate
from steppo_gym.rollouts.policies import Request
from steppo_gym.rollouts.pool import EnvFactory

SPEC = EnvFactory("steppo/KeyDoor-v0", {"context": "append", "max_steps": 40})
TASKS = [f"train-{number}" for number in range(60)]


def played(codec=None, **keywords):
    episodes = demonstrate(SPEC, TASKS, codec or MessageCodec(), **({"seed": 0} | keywords))
    timeless = {"generation_seconds": 0.0, "environment_seconds": 0.0}
    return [replace(e, steps=tuple(replace(step, **timeless) for step in e.steps)) for e in episodes]


def test_a_share_of_the_responses_is_spoiled_and_marked():
    plain, spoiled = played(), played(corruption_rate=0.2)
    assert not any(step.slip for demonstration in plain for step in demonstration.steps)
    said = {step.response for demonstration in plain for step in demonstration.steps}
    steps = [step for demonstration in spoiled for step in demonstration.steps]
    slips = [step for step in steps if step.slip]
    assert 0.14 < len(slips) / len(steps) < 0.26
    assert all(step.response in said for step in steps if not step.slip)
    assert sum(step.response in said for step in slips) < 0.1 * len(slips)
    # Both kinds: cut off, and with a word missing.
    assert {step.response.endswith("</action>") for step in slips} == {True, False}
    # The expert gets there all the same.
    assert all(demonstration.success for demonstration in plain)
    assert sum(demonstration.success for demonstration in spoiled) > 0.9 * len(spoiled)


def test_equal_seeds_spoil_the_same_whatever_the_workers():
    assert played(corruption_rate=0.2) == played(corruption_rate=0.2, num_workers=2)
    assert played(corruption_rate=0.2) != played(corruption_rate=0.2, seed=1)


@pytest.mark.parametrize("share", [-0.1, 1.0])
def test_bad_shares(share):
    with pytest.raises(ValueError, match="corruption_rate must be"):
        played(corruption_rate=share)


def test_what_is_corrupted_depends_on_the_seed_of_the_episode_alone():
    def corrupted(slots):
        policy = CorruptedExpert(MessageCodec(), 0.5)
        slips = {}
        for step in range(20):
            requests = [
                Request(slot, (0,), None, "one two three", seed=seed, stream=(slot, step))
                for slot, seed in slots.items()
            ]
            for request, response in zip(requests, policy.respond(requests), strict=True):
                slips.setdefault(request.seed, []).append((response.slip, policy.codec.text(response.token_ids[0])))
        return slips

    alone, together = corrupted({3: 7}), corrupted({0: 8, 1: 7})
    assert alone[7] == together[7] != together[8]
    # The next episode of a slot begins anew.
    policy, request = CorruptedExpert(MessageCodec(), 0.5), Request(0, (0,), None, "one two three", seed=7)
    assert len({policy.respond([request])[0].token_ids for _ in range(9)}) == 1
    # An expert's own slip stays one.
    (response,) = CorruptedExpert(MessageCodec()).respond([Request(0, (0,), None, "one", expert_slip=True)])
    assert response.slip


def test_the_experts_own_slips_are_marked():
    hasty = replace(SPEC, kwargs={**SPEC.kwargs, "expert": "hasty"})
    env = hasty.make()
    expected = []
    for number, task_id in enumerate(TASKS):
        env.reset(seed=number, options={"task_id": task_id})
        over = False
        while not over:
            response = env.expert_response()
            expected.append((response, env.expert_slip))
            _, _, terminated, truncated, _ = env.step(response)
            over = terminated or truncated
    episodes = demonstrate(hasty, TASKS, ByteCodec(), seed=0, num_workers=1)
    assert [(step.response, step.slip) for episode in episodes for step in episode.steps] == expected


@pytest.mark.parametrize("context", ["append", "rebuilt"])
def test_messages_are_tokens(context):
    spec = replace(SPEC, kwargs={**SPEC.kwargs, "context": context})
    messages = MessageCodec()
    (episode,) = demonstrate(spec, TASKS[:1], messages, seed=0)
    env = spec.make()
    observation, _ = env.reset(seed=0, options={"task_id": TASKS[0]})
    conversation = [env.system_prompt]
    for step in episode.steps:
        conversation = [*conversation, observation] if context == "append" else [env.system_prompt, observation]
        assert list(map(messages.text, step.prompt_ids)) == conversation
        assert messages.decode_response(step.response_ids) == step.response
        conversation.append(step.response)
        observation, *_ = env.step(step.response)


def children():
    return {int(pid) for pid in Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()}


def test_a_killed_worker_costs_nothing_but_time():
    # In bytes, because the order in which messages get their numbers is another one.
    whole, others, ends = played(ByteCodec(), corruption_rate=0.2), children(), []

    def on_episode(episode):
        if not ends:
            os.kill((children() - others).pop(), signal.SIGKILL)
        ends.append(episode.ended)

    assert played(ByteCodec(), corruption_rate=0.2, num_workers=2, on_episode=on_episode) == whole
    assert ends.count("failed") == len(ends) - len(TASKS) > 0
