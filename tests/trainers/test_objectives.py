"""The loss of every algorithm and its gradient, against the objective of its paper written out token by token.

The reference has no rows, batches, numbering or weights: one forward pass per step, credit from `credit_references`,
and the averages as the papers write them.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from credit_references import (
    Batch,
    flat,
    gagpo_slow,
    gigpo_slow,
    grpo_slow,
    hgpo_slow,
    ppo_slow,
    random_batch,
    reinforce_pp_slow,
    rloo_slow,
    steppo_slow,
    whitened_slow,
)
from newer_references import continuations_for, forks_for, paper_credit
from trainer_runs import SCRIPTS, relative_difference
from transformers import Qwen3ForCausalLM

from steppo_gym.credit.averages import LOSS_AVERAGES
from steppo_gym.credit.losses import RATIOS
from steppo_gym.credit.rows import build_rows, collate
from steppo_gym.rollouts.episode import Episode
from steppo_gym.trainers.branches import Branches
from steppo_gym.trainers.metrics import UpdateSums
from steppo_gym.trainers.rules import ALGORITHMS, BPO, VinePPO

CLIP = {"epsilon": 0.15, "epsilon_high": 0.25}
VALUE_CLIP = 0.06
BETA = 0.3


@dataclass(frozen=True)
class Paper:
    """What an algorithm is, by its paper and the protocol of multi-step episodes that is common to all."""

    credit: Callable[[Batch, object], list[float]]
    ratio: str
    average: str
    decisions: str = "steps"
    has_critic: bool = False


PAPERS = {
    "steppo": Paper(
        lambda b, c: whitened_slow(steppo_slow(b, c.gamma, c.gae_lambda)), "geometric", "steps", has_critic=True
    ),
    "ppo": Paper(
        lambda b, c: whitened_slow(ppo_slow(b, c.gamma, c.gae_lambda)), "token", "tokens", "tokens", has_critic=True
    ),
    "reinforce_pp": Paper(lambda b, c: whitened_slow(reinforce_pp_slow(b, c.gamma)), "token", "tokens", "tokens"),
    "grpo": Paper(lambda b, c: grpo_slow(b, True), "token", "episodes"),
    "gspo": Paper(lambda b, c: grpo_slow(b, True), "geometric", "episodes"),
    "rloo": Paper(lambda b, c: rloo_slow(b), "token", "tokens"),
    "gigpo": Paper(lambda b, c: gigpo_slow(b, c.gamma, 1.0, True, "state"), "token", "steps"),
    "hgpo": Paper(lambda b, c: hgpo_slow(b, c.gamma, 2, 1.0, True, "state"), "token", "steps"),
    "capo": Paper(
        lambda b, c: whitened_slow(steppo_slow(b, c.gamma, c.gae_lambda)), "sqrt_centered", "steps", has_critic=True
    ),
    "g2po": Paper(lambda b, c: paper_credit("g2po", b, c), "token", "steps"),
    "graphgpo": Paper(lambda b, c: paper_credit("graphgpo", b, c), "token", "steps"),
    "mt_grpo": Paper(lambda b, c: paper_credit("mt_grpo", b, c), "token", "tokens"),
    "empg": Paper(lambda b, c: paper_credit("empg", b, c), "token", "episodes"),
    "planpo": Paper(lambda b, c: paper_credit("planpo", b, c), "token", "episodes"),
    "vineppo": Paper(lambda b, c: paper_credit("vineppo", b, c), "token", "tokens"),
    "bpo": Paper(lambda b, c: paper_credit("bpo", b, c), "token", "steps"),
    "gagpo": Paper(lambda b, c: gagpo_slow(b, c.gamma, c.gae_lambda, True, "state"), "geometric", "steps"),
}
ONE_UPDATE = {**CLIP, "value_clip_range": VALUE_CLIP, "beta": BETA, "temperature": 1.0, "gamma": 0.9}


# The objective, written out


def plain_log_probs(policy, step):
    """(L,) of the response, given its prompt."""
    ids = torch.tensor([[*step.prompt_ids, *step.response_ids]])
    logits = policy(input_ids=ids).logits[0, len(step.prompt_ids) - 1 : -1]
    return torch.log_softmax(logits, dim=-1).gather(1, torch.tensor(step.response_ids)[:, None])[:, 0]


def plain_values(critic, prompt_ids, response_ids=()):
    """(L + 1,) before each token of the response and after its last one."""
    ids = torch.tensor([[*prompt_ids, *response_ids]])
    return critic(ids, torch.ones_like(ids))[0, len(prompt_ids) - 1 :]


def averaged(terms, average, ratio, longest):
    """`terms` has a list for each episode, with a (L,) tensor for each step: the term of each of its tokens.

    Where a term is that of a whole step, all of its tokens have the same.
    """
    steps = [step for episode in terms for step in episode]
    tokens = sum(len(step) for step in steps)
    if average == "tokens":
        return sum(step.sum() for step in steps) / tokens
    if average == "steps":
        return sum(step.mean() for step in steps) / len(steps)
    if average == "constant":
        return sum(step.sum() for step in steps) / (len(terms) * longest)
    of_episodes = [
        torch.cat(episode).mean() if ratio == "token" else sum(step.mean() for step in episode) / len(episode)
        for episode in terms
    ]
    return sum(of_episodes) / len(of_episodes)


def surrogate(z, advantages, ratio, center):
    """(L,) the clipped term of each token of a step."""
    if ratio == "geometric":
        z = z.mean().expand(len(z))
    if ratio == "sqrt_centered":
        z = (center + (z - center).sum() / math.sqrt(len(z))).expand(len(z))
    clipped = torch.clamp(torch.exp(z), 1 - CLIP["epsilon"], 1 + CLIP["epsilon_high"])
    return torch.minimum(torch.exp(z) * advantages, clipped * advantages)


def objective(batch, policy, reference, advantages, *, ratio, average, beta, longest):
    """What is maximised. `advantages`: for each episode and step the advantage of each token."""
    new = [[plain_log_probs(policy, step) for step in episode.steps] for episode in batch.episodes]
    old = [[torch.tensor(step.log_probs, dtype=torch.float64) for step in episode.steps] for episode in batch.episodes]
    z = [[n - o for n, o in zip(*pair, strict=True)] for pair in zip(new, old, strict=True)]
    center = torch.cat([step for episode in z for step in episode]).mean().detach()
    terms = [
        [surrogate(x, torch.tensor(a), ratio, center) for x, a in zip(*pair, strict=True)]
        for pair in zip(z, advantages, strict=True)
    ]
    total = averaged(terms, average, ratio, longest)
    if beta:
        kl = []
        for episode, log_probs in zip(batch.episodes, new, strict=True):
            kl.append([])
            for step, p in zip(episode.steps, log_probs, strict=True):
                q = plain_log_probs(reference, step).detach()
                kl[-1].append(torch.exp(q - p) - (q - p) - 1)
        total = total - beta * averaged(kl, average, ratio, longest)
    return total


def value_objective(batch, critic, old_values, targets, decisions):
    """Half the mean of the clipped squared errors over all decisions."""
    errors = []
    for episode in batch.episodes:
        for step in episode.steps:
            values = plain_values(critic, step.prompt_ids, step.response_ids)
            errors.append(values[:1] if decisions == "steps" else values[:-1])
    values, old, targets = torch.cat(errors), torch.tensor(old_values), torch.tensor(targets)
    # In units of the largest reward of a step, at least 1.
    clip = VALUE_CLIP * max(1.0, *(abs(step.reward) for episode in batch.episodes for step in episode.steps))
    clipped = torch.minimum(torch.maximum(values, old - clip), old + clip)
    assert (values != clipped).any() and (values == clipped).any()
    return 0.5 * torch.maximum((values - targets) ** 2, (clipped - targets) ** 2).mean()


# The models and the episodes


@pytest.fixture
def make_one(make_trainer, random_folder):
    """A trainer in float64 whose reference and critic are not what they started as."""

    def make(script, **settings):
        model = Qwen3ForCausalLM.from_pretrained(random_folder, dtype=torch.float64)
        # The references value the state that an episode was cut off in.
        bootstrap = {"bootstrap_truncated": True} if ALGORITHMS[script].critic else {}
        trainer = make_trainer(script=script, model=model, **ONE_UPDATE | bootstrap | settings)
        trainer.model.eval()
        shift(trainer.ref_model, 0.1)
        if trainer.critic is not None:
            trainer.critic.eval()
            shift(trainer.critic, 0.1)
        return trainer

    return make


@torch.no_grad()
def shift(module, size, seed=0):
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        parameter += size * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)


@torch.no_grad()
def sampled(batch, policy, seed):
    """The episodes as if they had been sampled from a policy that is near, but not the same."""
    rng = np.random.default_rng(seed)

    def with_log_probs(step):
        near = plain_log_probs(policy, step).numpy() + 0.25 * rng.normal(size=len(step.response_ids))
        return dataclasses.replace(step, log_probs=tuple(near.astype(np.float32).tolist()))

    return [
        dataclasses.replace(episode, steps=tuple(map(with_log_probs, episode.steps)))
        for episode in batch.episodes
        if episode.steps
    ]


@torch.no_grad()
def as_batch(episodes, trainer, penalty):
    """What the references read: the models' answers, each from a pass of its own."""
    step_values, token_values, final_values, added = [], [], [], []
    for episode in episodes:
        values = [[0.0] * (len(step.response_ids) + 1) for step in episode.steps]
        if trainer.critic is not None:
            values = [plain_values(trainer.critic, s.prompt_ids, s.response_ids).tolist() for s in episode.steps]
        step_values.append([of_step[0] for of_step in values])
        token_values.append([of_step[:-1] for of_step in values])
        truncated = episode.ended == "truncated" and trainer.critic is not None
        final_values.append(float(plain_values(trainer.critic, episode.final_prompt_ids)[0]) if truncated else 0.0)
        added.append(
            [
                (penalty * (plain_log_probs(trainer.ref_model, s).numpy() - np.array(s.log_probs))).tolist()
                for s in episode.steps
            ]
        )
    return Batch(episodes, step_values, token_values, final_values, added if penalty else None)


def on_tokens(batch, credit, decisions):
    """Credit in the order of the decisions, as one list for each step with an entry for each token."""
    waiting = list(credit)
    nested = []
    for episode in batch.episodes:
        nested.append([])
        for step in episode.steps:
            number = len(step.response_ids)
            nested[-1].append(
                [waiting.pop(0) for _ in range(number)] if decisions == "tokens" else [waiting.pop(0)] * number
            )
    assert not waiting
    return nested


def gradient(loss, *modules):
    """One vector, of every parameter of the modules."""
    parameters = [p for module in modules if module is not None for p in module.parameters()]
    found = torch.autograd.grad(loss, parameters, allow_unused=True)
    return torch.cat(
        [(torch.zeros_like(p) if g is None else g).flatten() for p, g in zip(parameters, found, strict=True)]
    )


def branches_of(rule, episodes):
    """Some for the rules that branch."""
    if isinstance(rule, BPO):
        return Branches(tuple(episodes), tuple(forks_for(episodes)))
    if isinstance(rule, VinePPO):
        return Branches(tuple(episodes), continuations=tuple(continuations_for(episodes)))
    return Branches(tuple(episodes))


def begin(trainer, episodes):
    """The iteration and the totals of its one update, where that begins.

    The critic has moved since, so that its clip takes part.
    """
    rows = build_rows(episodes)
    iteration = trainer._assign_credit(branches_of(trainer.rule, episodes), rows, 0)
    if trainer.critic is not None:
        shift(trainer.critic, 0.02, seed=1)
    return iteration, trainer._forward.begin_update(iteration, iteration.slices, trainer.gather)


def loss_and_gradient(trainer, begun, batches):
    """Of all micro-batches together."""
    total = sum(trainer._forward.loss(trainer.model, batch, *begun, UpdateSums()) for batch in batches)
    return float(total.detach()), gradient(total, trainer.model, trainer.critic)


def episodes_for(trainer, seed, **kwargs):
    return sampled(random_batch(seed, **kwargs), trainer.model, seed)


# Seeds whose episodes are of both endings and contexts, in groups, with equal states.
SEEDS = (48, 199)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_episodes_differ_in_all_that_matters(seed):
    episodes = [episode for episode in random_batch(seed).episodes if episode.steps]
    assert {episode.ended for episode in episodes} == {"terminated", "truncated"}
    assert len({len(episode.steps) for episode in episodes}) > 2
    assert len({len(step.response_ids) for episode in episodes for step in episode.steps}) > 2
    assert 1 < len({episode.group for episode in episodes}) < len(episodes)
    rows = [row for row in build_rows(episodes) if (row.step_index >= 0).any()]
    assert len(episodes) < len(rows) < sum(len(episode.steps) for episode in episodes)


@pytest.mark.parametrize("script", SCRIPTS)
def test_the_gradient_is_that_of_the_papers_objective(make_one, script):
    paper, trainer = PAPERS[script], make_one(script)
    assert (trainer.critic is not None) == paper.has_critic
    usual = trainer.args.kl_in
    assert usual == ("reward" if script in ("rloo", "reinforce_pp") else "loss")
    for seed, beta, kl_in in ((SEEDS[0], 0.0, usual), (SEEDS[0], BETA, "loss"), (SEEDS[1], BETA, "reward")):
        trainer.args.beta, trainer.args.kl_in = beta, kl_in
        batch = as_batch(episodes_for(trainer, seed), trainer, beta if kl_in == "reward" else 0.0)
        begun = begin(trainer, batch.episodes)
        rows = [row for part in begun[0].slices for row in part.rows]
        loss, found = loss_and_gradient(trainer, begun, [collate(rows, trainer.pad_token_id)])

        credit = paper.credit(batch, trainer.rule)
        wanted = -objective(
            batch,
            trainer.model,
            trainer.ref_model,
            on_tokens(batch, credit, paper.decisions),
            ratio=paper.ratio,
            average=paper.average,
            beta=beta if kl_in == "loss" else 0.0,
            longest=None,
        )
        if paper.has_critic:
            slow = {"steppo": steppo_slow, "capo": steppo_slow, "ppo": ppo_slow}[script](
                batch, trainer.rule.gamma, trainer.rule.gae_lambda
            )
            old = flat(batch.step_values if paper.decisions == "steps" else batch.token_values)
            targets = [advantage + value for advantage, value in zip(slow, old, strict=True)]
            wanted = wanted + value_objective(batch, trainer.critic, old, targets, paper.decisions)
        assert loss == pytest.approx(float(wanted.detach()), rel=1e-5, abs=1e-7)
        assert relative_difference(gradient(wanted, trainer.model), found[: sum_of_sizes(trainer.model)]) < 1e-5
        if paper.has_critic:
            expected = gradient(wanted, trainer.critic)
            assert relative_difference(expected, found[sum_of_sizes(trainer.model) :]) < 1e-5


def sum_of_sizes(module):
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("beta", [0.0, BETA])
def test_every_average_of_every_ratio_is_the_one_it_is_named_for(make_one, beta):
    trainer = make_one("grpo")
    trainer.args.beta = beta
    batch = as_batch(episodes_for(trainer, SEEDS[0]), trainer, 0.0)
    advantages = on_tokens(batch, grpo_slow(batch, True), "steps")
    gradients = []
    for ratio in RATIOS:
        for average in LOSS_AVERAGES:
            trainer.args.ratio, trainer.args.loss_average = ratio, average
            begun = begin(trainer, batch.episodes)
            rows = [row for part in begun[0].slices for row in part.rows]
            loss, found = loss_and_gradient(trainer, begun, [collate(rows, trainer.pad_token_id)])
            wanted = -objective(
                batch,
                trainer.model,
                trainer.ref_model,
                advantages,
                ratio=ratio,
                average=average,
                beta=beta,
                longest=trainer.args.max_completion_length,
            )
            assert loss == pytest.approx(float(wanted.detach()), rel=1e-5, abs=1e-7), (ratio, average)
            assert relative_difference(gradient(wanted, trainer.model), found) < 1e-5, (ratio, average)
            gradients.append(found)
    assert all(relative_difference(one, other) > 1e-3 for i, one in enumerate(gradients) for other in gradients[:i])


def arrangements(trainer, episodes, begun):
    """The same tokens in other batches: row by row, in another order with more padding, and each step on its own."""
    pad = trainer.pad_token_id
    rows = [row for part in begun[0].slices for row in part.rows]
    yield "one by one", [collate([row], pad) for row in rows]
    padded = collate([rows[i] for i in np.random.default_rng(0).permutation(len(rows))], pad)
    fills = {"input_ids": pad, "attention_mask": 0, "old_log_probs": math.nan}
    yield (
        "padded",
        [{name: torch.nn.functional.pad(x, (0, 7), value=fills.get(name, -1)) for name, x in padded.items()}],
    )
    steps = build_rows([Episode("task", (step,), "terminated") for episode in episodes for step in episode.steps])
    assert len(steps) > len(rows)
    yield "steps alone", [collate(steps[:3], pad), collate(steps[3:], pad)]


def arranged_alike(trainer, episodes, label):
    begun = begin(trainer, episodes)
    rows = [row for part in begun[0].slices for row in part.rows]
    loss, whole = loss_and_gradient(trainer, begun, [collate(rows, trainer.pad_token_id)])
    for name, batches in arrangements(trainer, episodes, begun):
        other_loss, other = loss_and_gradient(trainer, begun, batches)
        assert other_loss == pytest.approx(loss, rel=1e-5, abs=1e-7), (label, name)
        assert relative_difference(whole, other) < 1e-5, (label, name)


@pytest.mark.parametrize("script", SCRIPTS)
def test_rows_may_be_permuted_padded_and_split(make_one, script):
    trainer = make_one(script)
    arranged_alike(trainer, episodes_for(trainer, SEEDS[0]), script)
    if script in ("ppo", "grpo"):  # credit of tokens with a critic, and of episodes
        for ratio in RATIOS:
            for average in LOSS_AVERAGES:
                trainer.args.ratio, trainer.args.loss_average = ratio, average
                arranged_alike(trainer, episodes_for(trainer, SEEDS[0]), (ratio, average))


def test_with_steps_of_one_token_and_the_token_ratio_steppo_is_ppo(make_one):
    found = []
    for script in ("steppo", "ppo"):
        trainer = make_one(script, ratio="token")
        episodes = episodes_for(trainer, SEEDS[0], max_tokens=1)
        begun = begin(trainer, episodes)
        rows = [row for part in begun[0].slices for row in part.rows]
        found.append(loss_and_gradient(trainer, begun, [collate(rows, trainer.pad_token_id)]))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-9)
    assert relative_difference(found[0][1], found[1][1]) < 1e-9


def test_a_group_of_equal_returns_teaches_nothing(make_one):
    for script in ("grpo", "gspo", "rloo"):
        trainer = make_one(script)
        trainer.args.beta = 0.0
        episodes = [
            dataclasses.replace(
                episode,
                steps=tuple(
                    dataclasses.replace(step, reward=float(step is episode.steps[-1])) for step in episode.steps
                ),
            )
            for episode in episodes_for(trainer, SEEDS[0])
        ]
        begun = begin(trainer, episodes)
        rows = [row for part in begun[0].slices for row in part.rows]
        loss, found = loss_and_gradient(trainer, begun, [collate(rows, trainer.pad_token_id)])
        assert loss == 0.0
        assert found.norm() == 0.0


def test_a_penalty_in_the_reward_is_credit_and_one_in_the_loss_is_not(make_one):
    trainer = make_one("reinforce_pp", whiten_advantages=False, gamma=1.0)
    episodes = episodes_for(trainer, SEEDS[0])
    trainer.args.kl_in = "loss"
    plain, _ = begin(trainer, episodes)
    trainer.args.kl_in = "reward"
    paid, _ = begin(trainer, episodes)
    difference = paid.credit.advantages - plain.credit.advantages
    # The penalty of a token counts for it and for all tokens of the episode before it.
    ends = np.cumsum([sum(len(step.response_ids) for step in episode.steps) for episode in episodes])
    penalties = BETA * (paid.reference_log_probs - paid.old_log_probs)
    wanted = np.concatenate([np.cumsum(part[::-1])[::-1] for part in np.split(penalties, ends[:-1])])
    np.testing.assert_allclose(difference, wanted, atol=1e-9)
    assert abs(wanted).max() > 1e-2
