"""`ModelPolicy` against plain forward passes and transformers' own generation."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import Qwen3Config, Qwen3ForCausalLM

from steppo_gym.rollouts.policies import Request
from steppo_gym.rollouts.pool import EnvFactory, EnvPool
from steppo_gym.rollouts.rollout import Assignment, collect
from steppo_gym.trainers.policy import generation
from steppo_gym.trainers.policy.generation import BackendPolicy, ModelPolicy


def make_policy(model, codec, num_slots=4, **changes):
    settings = {"stop_token_ids": codec.stop_token_ids, "pad_token_id": 0, "max_response_tokens": 10} | changes
    return ModelPolicy(model, num_slots=num_slots, **settings)


@torch.no_grad()
def forward_log_probs(model, prompt_ids, response_ids, temperature=1.0):
    """Of each response token, from one pass over prompt and response without a cache."""
    logits = model(input_ids=torch.tensor([[*prompt_ids, *response_ids]]), use_cache=False).logits[0]
    log_probs = torch.log_softmax(logits.float() / temperature, dim=-1)[len(prompt_ids) - 1 : -1]
    return log_probs.gather(1, torch.tensor(response_ids)[:, None]).squeeze(1)


@pytest.fixture(scope="session")
def observations(demonstrations, messages):
    """The first ones of the demonstrations."""
    return [messages.text(d.steps[0].prompt_ids[-1]) for d in demonstrations]


def prompts(codec, observations, number):
    """First prompts of different lengths."""
    return [codec.first_prompt("", (), text + " Well?" * i) for i, text in enumerate(observations[:number])]


@pytest.mark.parametrize("context", ["append", "rebuilt"])
def test_log_probs_are_those_of_a_full_forward_pass(model, codec, context):
    policy = make_policy(model, codec, num_slots=10, temperature=0.7, seed=1)
    # More episodes than slots: slots are filled again while others are in the middle of an episode, and contexts move.
    assignments = [Assignment(f"train-{number}", seed=number) for number in range(14)]
    with EnvPool(EnvFactory("steppo/KeyDoor-v0", {"context": context}), num_slots=10) as pool:
        # The limit ends the episodes of the rebuilt context, which this policy knows nothing of, at different steps.
        episodes = collect(policy, pool, codec, assignments, max_prompt_tokens=250, overlap=False).episodes
    steps = [step for episode in episodes for step in episode.steps]
    assert len({len(episode.steps) for episode in episodes}) > 1
    assert len({len(step.response_ids) for step in steps}) > 2
    for step in steps:
        expected = forward_log_probs(model, step.prompt_ids, step.response_ids, temperature=0.7)
        # The temperature magnifies what rounding does to logits.
        torch.testing.assert_close(torch.tensor(step.log_probs), expected, atol=1e-5 / 0.7, rtol=0)


def test_greedy_is_what_transformers_generates(model, codec, observations):
    requests = [Request(slot, prompt) for slot, prompt in enumerate(prompts(codec, observations, 4))]
    responses = make_policy(model, codec, temperature=0).respond(requests)
    for request, response in zip(requests, responses, strict=True):
        generated = model.generate(
            torch.tensor([request.prompt_ids]),
            attention_mask=torch.ones(1, len(request.prompt_ids), dtype=torch.long),
            do_sample=False,
            max_new_tokens=10,
            eos_token_id=list(codec.stop_token_ids),
        )
        assert response.token_ids == tuple(generated[0, len(request.prompt_ids) :].tolist())
        expected = forward_log_probs(model, request.prompt_ids, response.token_ids)
        torch.testing.assert_close(torch.tensor(response.log_probs), expected, atol=1e-5, rtol=0)


def test_a_row_does_not_depend_on_its_batch_or_on_what_its_slot_held(model, codec, observations):
    first, second, third, fourth = prompts(codec, observations, 4)
    together = make_policy(model, codec, temperature=0)
    together.respond([Request(0, fourth), Request(2, fourth + first), Request(1, first)])
    # Slot 0 changes in the middle, slot 2 is cut back to a beginning of what it holds, slot 1 asks for the same again.
    responses = together.respond([Request(2, fourth), Request(0, second + third), Request(1, first)])
    for prompt, response in zip((fourth, second + third, first), responses, strict=True):
        alone = make_policy(model, codec, temperature=0).respond([Request(3, prompt)])[0]
        assert alone.token_ids == response.token_ids
        torch.testing.assert_close(torch.tensor(alone.log_probs), torch.tensor(response.log_probs), atol=1e-5, rtol=0)


def test_a_rollout_does_not_read_the_keys_of_older_weights(model, codec):
    policy, assignments = make_policy(model, codec, num_slots=2), [Assignment("train-0", seed=0)] * 2
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.05)
    with EnvPool(EnvFactory("steppo/KeyDoor-v0", {"max_steps": 2}), num_slots=2) as pool:
        collect(policy, pool, codec, assignments)
        model(input_ids=torch.tensor([codec.first_prompt("", (), "-")])).logits.square().mean().backward()
        optimizer.step()
        episodes = collect(policy, pool, codec, assignments).episodes
    for step in (step for episode in episodes for step in episode.steps):
        expected = forward_log_probs(model, step.prompt_ids, step.response_ids)
        torch.testing.assert_close(torch.tensor(step.log_probs), expected, atol=1e-5, rtol=0)


def test_equal_seeds_give_equal_tokens(model, codec, observations):
    requests = [Request(slot, prompt) for slot, prompt in enumerate(prompts(codec, observations, 4))]
    first, second, third = (make_policy(model, codec, seed=seed).respond(requests) for seed in (5, 5, 6))
    assert first == second
    assert first != third


def test_sampling_follows_the_distribution(model, codec, observations):
    prompt = prompts(codec, observations, 1)[0]
    policy = make_policy(model, codec, num_slots=500, max_response_tokens=1, temperature=2.0, seed=0)
    sampled = [response.token_ids[0] for response in policy.respond([Request(slot, prompt) for slot in range(500)])]
    with torch.no_grad():
        chances = torch.softmax(model(input_ids=torch.tensor([prompt])).logits[0, -1] / 2.0, dim=-1)
    likeliest = int(chances.argmax())
    chance = float(chances[likeliest])
    deviation = (chance * (1 - chance) / 500) ** 0.5
    assert 0.02 < chance < 0.98
    assert abs(sampled.count(likeliest) / 500 - chance) < 4 * deviation


def test_the_cache_grows_with_its_longest_row(model, codec, observations):
    policy = make_policy(model, codec, temperature=1.0)
    policy._cache.capacity = 256
    short, long = prompts(codec, observations, 2)
    long = (long * 10)[:253]
    for length in (253, 700):  # the first outgrows 256 columns while it responds, the second in its prompt
        long = (long * 3)[:length]
        for prompt, response in zip((short, long), policy.respond([Request(0, short), Request(1, long)]), strict=True):
            expected = forward_log_probs(model, prompt, response.token_ids)
            torch.testing.assert_close(torch.tensor(response.log_probs), expected, atol=1e-5, rtol=0)
        short, long = (*short, *long[:5]), (*long, *response.token_ids)
    assert policy._cache.capacity >= 700


def test_a_response_ends_at_its_first_stop_token_or_is_cut(model, codec, observations):
    requests = [Request(slot, prompt) for slot, prompt in enumerate(prompts(codec, observations, 4) * 4)]
    policy = make_policy(model, codec, num_slots=16, max_response_tokens=6, temperature=1.5)
    responses = policy.respond(requests)
    stops = set(codec.stop_token_ids)
    lengths = {len(response.token_ids) for response in responses}
    assert max(lengths) == 6 and len(lengths) > 1
    for response in responses:
        assert not stops & set(response.token_ids[:-1])
        assert response.token_ids[-1] in stops or len(response.token_ids) == 6
        assert len(response.log_probs) == len(response.token_ids)


def test_the_mode_of_the_model_stays(model, codec, observations):
    model.train()
    make_policy(model, codec).respond([Request(0, prompts(codec, observations, 1)[0])])
    assert model.training


def test_a_kernel_that_plans_for_every_width_takes_no_part(model, codec, observations):
    """It sits on GPUs alone; whether it may be taken is known everywhere."""
    seen = []
    model.register_forward_pre_hook(lambda *_: seen.append(torch.backends.cuda.cudnn_sdp_enabled()))
    before = torch.backends.cuda.cudnn_sdp_enabled()
    make_policy(model, codec).respond([Request(0, prompts(codec, observations, 1)[0])])
    assert seen
    assert not any(seen)
    assert torch.backends.cuda.cudnn_sdp_enabled() == before


def test_keys_go_with_their_policy(model, codec, observations):
    policy = make_policy(model, codec)
    policy.respond([Request(0, prompts(codec, observations, 1)[0])])
    keys = weakref.ref(policy._cache.layers[0].keys)
    gc.disable()
    try:
        del policy
        assert keys() is None
    finally:
        gc.enable()


def test_adapters_take_part(model, codec, observations):
    requests = [Request(slot, prompt) for slot, prompt in enumerate(prompts(codec, observations, 3))]
    plain = make_policy(model, codec, temperature=0).respond(requests)
    torch.manual_seed(0)
    adapted = get_peft_model(model, LoraConfig(r=4, init_lora_weights=False, target_modules=["q_proj", "v_proj"]))
    responses = make_policy(adapted, codec, temperature=0).respond(requests)
    assert [response.log_probs for response in responses] != [response.log_probs for response in plain]
    for request, response in zip(requests, responses, strict=True):
        expected = forward_log_probs(adapted, request.prompt_ids, response.token_ids)
        torch.testing.assert_close(torch.tensor(response.log_probs), expected, atol=1e-5, rtol=0)


def test_a_model_with_a_sliding_window_is_refused(codec):
    sizes = {"vocab_size": 10, "hidden_size": 8, "intermediate_size": 8, "num_attention_heads": 1, "head_dim": 8}
    config = Qwen3Config(
        **sizes,
        num_hidden_layers=2,
        num_key_value_heads=1,
        use_sliding_window=True,
        sliding_window=16,
        max_window_layers=1,
    )
    with pytest.raises(ValueError, match=r"Qwen3ForCausalLM has \['full_attention', 'sliding_attention'\].*--use_vllm"):
        make_policy(Qwen3ForCausalLM(config), codec)


def test_a_negative_temperature_is_refused(model, codec):
    with pytest.raises(ValueError, match=r"temperature must be at least 0, got -1\.0"):
        make_policy(model, codec, temperature=-1.0)


@pytest.mark.parametrize("known", [False, True])
def test_a_backend_gets_whole_prompts_and_may_know_log_probs(known):
    asked = []

    def generate(prompts):
        asked.extend(prompts)
        return [[len(prompt), 7] for prompt in prompts], [
            [-1.0, -0.5 * len(prompt)] for prompt in prompts
        ] if known else None

    responses = BackendPolicy(generate, [9]).respond([Request(3, (1, 2, 3)), Request(0, (4,))])
    assert asked == [[1, 2, 3], [4]]
    assert [response.token_ids for response in responses] == [(3, 7), (1, 7)]
    assert [response.log_probs for response in responses] == ([(-1.0, -1.5), (-1.0, -0.5)] if known else [None, None])


def test_a_backend_that_does_not_know_the_end_of_a_message_is_cut_there():
    policy = BackendPolicy(lambda prompts: ([[5, 9, 6, 9], [9]], [[-1.0, -2.0, -3.0, -4.0], [-5.0]]), [8, 9])
    cut, whole = policy.respond([Request(0, (1,)), Request(1, (2,))])
    assert (cut.token_ids, cut.log_probs) == ((5, 9), (-1.0, -2.0))
    assert (whole.token_ids, whole.log_probs) == ((9,), (-5.0,))
    (cut,) = BackendPolicy(lambda prompts: ([[5, 9, 6]], None), [9]).respond([Request(0, (1,))])
    assert (cut.token_ids, cut.log_probs) == ((5, 9), None)


def streamed(policy, requests, later):
    """All responses, if a slot asks again as soon as it has been answered; `later` maps slots to what it asks then."""
    answers, later = {}, {slot: list(more) for slot, more in later.items()}
    for request in requests:
        policy.submit(request)
    left = len(requests) + sum(map(len, later.values()))
    while left:
        for answer in policy.poll(0.0):
            answers.setdefault(answer.slot, []).append(answer.outcome)
            left -= 1
            if later.get(answer.slot):
                policy.submit(later[answer.slot].pop(0))
    return answers


@pytest.mark.parametrize("share", [0.01, 0.5])
def test_streaming_gives_the_responses_of_lock_step(model, codec, observations, share, monkeypatch):
    monkeypatch.setattr(generation, "ADMITTED_SHARE", share)
    asked = prompts(codec, observations, 10)
    # Slots ask one to three times, so that they come and go at different times, and fewer rows than slots are free.
    requests = [Request(slot, asked[slot], stream=(slot, 0)) for slot in range(6)]
    later = {
        slot: [Request(slot, asked[(slot + n) % 10], stream=(slot, n)) for n in (1, 2)][: slot % 3] for slot in range(6)
    }
    together = make_policy(model, codec, num_slots=6, temperature=2.0)
    expected = {r.slot: [a] for r, a in zip(requests, together.respond(requests), strict=True)}
    for n in (0, 1):
        more = [later[slot][n] for slot in range(6) if len(later[slot]) > n]
        for request, response in zip(more, together.respond(more), strict=True):
            expected[request.slot].append(response)
    found = streamed(make_policy(model, codec, num_slots=6, temperature=2.0), requests, later)
    for slot, responses in expected.items():
        assert [r.token_ids for r in found[slot]] == [r.token_ids for r in responses]
        for one, other in zip(found[slot], responses, strict=True):
            assert one.log_probs == pytest.approx(other.log_probs, abs=1e-5)


def test_room_is_made_where_the_rows_behind_are_taken(model, codec, observations):
    asked = prompts(codec, observations, 4)
    policy = make_policy(model, codec)
    alone = [make_policy(model, codec).respond([Request(0, asked[i], stream=(i, 0))])[0] for i in range(4)]
    # Only the last row is at work when three others ask.
    policy.submit(Request(3, asked[3], stream=(3, 0)))
    answers = {a.slot: a.outcome for a in policy.poll(0.0)}
    assert not answers and policy._running.first == 3
    for slot in range(3):
        policy.submit(Request(slot, asked[slot], stream=(slot, 0)))
    while len(answers) < 4:
        answers |= {a.slot: a.outcome for a in policy.poll(0.0)}
    assert [answers[slot].token_ids for slot in range(4)] == [response.token_ids for response in alone]


def test_what_is_given_up_leaves_nothing_behind(model, codec, observations):
    asked = prompts(codec, observations, 4)
    policy = make_policy(model, codec)
    for slot in range(4):
        policy.submit(Request(slot, asked[slot], stream=(slot, 0)))
    policy.poll(0.0)
    policy.drop()
    assert policy.poll(0.0) == []
    again = [Request(slot, asked[slot], stream=(slot, 0)) for slot in range(4)]
    assert policy.respond(again) == make_policy(model, codec).respond(again)


def test_what_failed_while_prompts_were_read_leaves_nothing_behind(model, codec, observations):
    policy = make_policy(model, codec)
    first, second, third = ((Request(0, prompt, stream=(0, 0)),) for prompt in prompts(codec, observations, 3))
    policy.respond(first)

    def fail(*_):
        raise RuntimeError("no memory, on purpose")

    # The layer has written its keys by then.
    hook = model.get_output_embeddings().register_forward_hook(fail)
    with pytest.raises(RuntimeError, match="on purpose"):
        policy.respond(second)
    hook.remove()
    assert policy.respond(first) == make_policy(model, codec).respond(first)
    assert policy.respond(third) == make_policy(model, codec).respond(third)
