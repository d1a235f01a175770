"""`StepTrainer`: TRL's GRPOTrainer with rollouts, credit and a critic for steps.

TRL keeps models and PEFT, the reference model, the data loader and its sampler, vLLM, the training loop, logging and
checkpoints. What is replaced, and the private methods of TRL 1.16 and transformers that this relies on:

| method | why |
|---|---|
| `_set_signature_columns_if_needed` | keep the column of task ids |
| `_prepare_inputs` | collect episodes and assign credit once per iteration, hand out slices of it |
| `training_step` | any number of micro-batches per slice, with their backward passes |
| `create_optimizer`, `_get_grad_norm` | the critic is a parameter group of its own; gradients are finite |
| `evaluate` | play held-out tasks instead of computing a loss |
| `_save_checkpoint`, `_get_output_dir` | a checkpoint is complete or not there (checkpoints.py) |
| `_load_optimizer_and_scheduler` | weights of the critic and of a reference that follows the policy, order of tasks |
| `_get_train_sampler` | keep what deals the tasks, whose state is in no checkpoint |
| `_load_rng_state` | a damaged file is named |
| `_save`, `_load_from_checkpoint`, `_save_optimizer_and_scheduler`, `_defer_fsdp_gradient_reduction` | sharded models |
| `_send_telemetry` | nothing is sent |
| called: `_generate_single_turn` | vLLM |
| used: `_metrics`, `_step`, `_current_train_step_time`, `_signature_columns` | logging, position, columns |
| read: `_tokenizer`, `eos_token_ids`; `model(..., fused_lm_head=True)` | tokens that stop, log-probabilities |

An update is one optimizer step on `episodes_per_iteration / updates_per_iteration` episodes. Its loss is a mean over
the update's tokens, steps or episodes (`loss_average`) plus the mean over its values: sums over micro-batches divided
by counts over all micro-batches and processes, so neither the size of a micro-batch nor accumulation nor the number of
processes changes it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from typing import Any

import numpy as np
from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from trl.trainer.utils import add_fused_lm_head

from steppo_gym.credit.averages import loss_weights
from steppo_gym.credit.records import CreditRule, Records, check_credit
from steppo_gym.credit.rows import Row, build_rows, padding_share, token_budget_batches
from steppo_gym.credit.whitening import merge_moments, moments, whiten
from steppo_gym.rollouts.episode import Episode
from steppo_gym.rollouts.pool import EnvFactory
from steppo_gym.rollouts.rollout import Rollout
from steppo_gym.trainers.branches import Branches, branch_metrics, play_branches
from steppo_gym.trainers.credit_file import CreditRecorder
from steppo_gym.trainers.critic_config import CriticConfig, has_final_value
from steppo_gym.trainers.dropout import disable_dropout
from steppo_gym.trainers.evaluation import EvaluationSet
from steppo_gym.trainers.finiteness import (
    require_finite_credit,
    require_finite_model,
    require_finite_rewards,
)
from steppo_gym.trainers.metrics import UpdateSums, credit_metrics, rollout_metrics, without_texts
from steppo_gym.trainers.off_policy import correction_of
from steppo_gym.trainers.phases import OptimizerClock, Phases
from steppo_gym.trainers.policy.chat import ChatCodec
from steppo_gym.trainers.policy.critic import Critic, default_kind
from steppo_gym.trainers.policy.model_limits import (
    begin_reference,
    check_adapters,
    check_vocabulary,
    context_limits,
)
from steppo_gym.trainers.policy.output_layer import score_few_at_a_time
from steppo_gym.trainers.policy.sampling_check import check_sampling, computes_in_16_bits, rows_gap
from steppo_gym.trainers.sharding.models import ShardedModels, build_sharded, refuse_unsharded
from steppo_gym.trainers.step_config import StepConfig, check_rule
from steppo_gym.trainers.step_data import (
    Iteration,
    largest_reward,
    sampled_log_probs,
    split_rows,
)
from steppo_gym.trainers.step_forward import Models, StepForward, UpdateTotals
from steppo_gym.trainers.trl_settings import check_distribution, check_trl_version, no_reward_function
from steppo_gym.trainers.updating_trainer import GradientsGivenBack, UpdatingTrainer


class StepTrainer(UpdatingTrainer):
    """Trains a policy on episodes of text environments, with credit assigned to steps or tokens by a rule.

    Args:
        model: a causal language model, or the name or folder of one.
        args: settings of the run.
        spec: the training environment.
        task_ids: training tasks; iterations draw from them without replacement until too few for another are left.
        rule: the credit rule.
        critic_config: settings of the critic, for rules that have one.
        evaluation_sets: held-out tasks played greedily every `args.evaluate_every` iterations.
        processing_class: the policy's tokenizer, with a chat template.
        on_episode: called with every episode as it ends, for progress bars.
        **kwargs: passed on to GRPOTrainer: `peft_config`, `callbacks`, `optimizers`, `quantization_config`.

    Raises:
        UnsupportedVersionError: the installed TRL is not 1.16.
        ValueError: a set-up that cannot work; the message says why.
        NonFiniteError: a weight of the model is not finite.
        SamplingGapError: the model is sampled from another distribution than it is trained on.
    """

    _tag_names = ["trl", "steppo-gym"]  # noqa: RUF012 - declared by TRL
    _name = "steppo-gym"
    # GRPOTrainer's would put the paper of another method into the model card.
    _paper: dict[str, str] = {}  # noqa: RUF012 - declared by TRL
    args: StepConfig
    model: Any

    def __init__(
        self,
        model: str | PreTrainedModel,
        args: StepConfig,
        *,
        spec: EnvFactory,
        task_ids: Sequence[str],
        rule: CreditRule,
        critic_config: CriticConfig | None = None,
        processing_class: PreTrainedTokenizerBase,
        evaluation_sets: Sequence[EvaluationSet] = (),
        on_episode: Callable[[Episode], None] | None = None,
        **kwargs: Any,
    ) -> None:
        check_trl_version(version("trl"))
        check_rule(type(rule), args, critic_config)
        tasks = args.episodes_per_iteration // args.num_generations
        if len(task_ids) < tasks:
            raise ValueError(
                f"An iteration plays {tasks} different tasks, but the training split has only {len(task_ids)}."
            )
        beta = args.beta
        if args.shard != "none":
            model = self._shard(model, args, rule, critic_config, kwargs)
            # GRPOTrainer's reference would be whole in every process.
            args.beta = 0.0
        super().__init__(
            model=model,
            reward_funcs=no_reward_function,  # type: ignore[arg-type]
            args=args,
            train_dataset=Dataset.from_dict({"prompt": list(task_ids)}),
            # Transformers wants to see one; `evaluate` plays the evaluation sets instead.
            eval_dataset=Dataset.from_dict({"prompt": []}),
            processing_class=processing_class,
            **kwargs,
        )
        args.beta = self.beta = beta
        begin_reference(self.ref_model, self.model)
        check_distribution(self.accelerator.distributed_type)
        self.spec, self.rule, self.evaluation_sets, self.on_episode = spec, rule, tuple(evaluation_sets), on_episode
        self.task_ids = tuple(task_ids)
        if args.disable_dropout:
            # Before the critic is copied from it.
            disable_dropout(self.model)
        self.pad_token_id: int = self._tokenizer.pad_token_id  # type: ignore[assignment]
        self.slices_per_pass: int = args.steps_per_generation  # type: ignore[assignment]
        template_arguments: Any = self.chat_template_kwargs
        self.codec = ChatCodec(self._tokenizer, template_arguments, self.eos_token_ids)
        check_vocabulary(self.model, self.pad_token_id, self.codec)
        check_adapters(self.model)
        require_finite_model(self.model, str(self.model.name_or_path))
        self.critic_config, self.critic = critic_config or CriticConfig(), None
        if self.sharded is not None:
            self._take_sharded(self.sharded)
        elif rule.critic is not None:
            policy = self.accelerator.unwrap_model(self.model)
            critic = Critic(policy, self.critic_config.critic or default_kind(policy)).to(self.accelerator.device)
            self.critic = self.accelerator.prepare_model(critic)
        for scored in () if args.cast_lm_head_to_fp32 else (self.model, self.ref_model):
            score_few_at_a_time(scored, self.temperature)
        if self.critic is not None and args.gradient_checkpointing:
            self.accelerator.unwrap_model(self.critic).checkpoint_activations(args.gradient_checkpointing_kwargs)
        self.max_prompt_tokens, self.max_row_tokens = context_limits(
            self.accelerator.unwrap_model(self.model), args.max_prompt_tokens, args.max_response_tokens
        )
        self.low_precision = bool(args.bf16 or args.fp16 or computes_in_16_bits(self.model))
        gather = None if self.sharded is None else self.gather
        models = Models(self.model, self.ref_model, self.critic, self.accelerator, self.pad_token_id, gather)
        self._forward = StepForward(models, args, self.critic_config.value_clip_range)
        self.phases = Phases()
        self._credit_recorder = CreditRecorder(self._forward.log_probs, args.updates_in_iteration, args.record_credit)
        self.add_callback(self._credit_recorder)
        self.add_callback(OptimizerClock(self.phases))
        if self.critic is not None:
            self.add_callback(GradientsGivenBack(self.critic))
        self._pools = {}
        self._iteration = None
        self._totals, self._sums = UpdateTotals(1.0, 1.0), UpdateSums()
        self.set_up_sampling()
        if not self.use_vllm and self._servers is None:
            train = partial(self._forward.log_probs, training=args.disable_dropout)
            with self._whole_policy() as whole:
                check_sampling(self._probe(whole), self.codec, train, low_precision=self.low_precision)

    def _shard(
        self,
        model: Any,
        args: StepConfig,
        rule: CreditRule,
        critic_config: CriticConfig | None,
        kwargs: dict[str, Any],
    ) -> Any:
        """The policy, with adapters and sharded, for GRPOTrainer to take as it is."""
        adapters, has_critic = kwargs.pop("peft_config", None), rule.critic is not None
        refuse_unsharded(args, model, adapters, kwargs.get("quantization_config"))
        kind = None if critic_config is None else critic_config.critic
        sharded = build_sharded(model, args, peft_config=adapters, critic=kind, has_critic=has_critic)
        self.sharded = sharded
        return sharded.policy

    def _take_sharded(self, sharded: ShardedModels) -> None:
        """Critic and reference; and transformers' own word for a model that looks after its gradients itself."""
        if not hasattr(self, "is_distributed_loading_by_transformers"):
            raise ValueError("--shard needs transformers 5.23, in which a trainer leaves sharded models as they are.")
        self.is_distributed_loading_by_transformers = True
        self.critic, self.ref_model = sharded.critic, sharded.reference
        if self.ref_model is not None:
            add_fused_lm_head(self.ref_model, temperature=self.temperature)

    def _set_signature_columns_if_needed(self) -> None:
        self._signature_columns = ["prompt"]

    def _prepare_inputs(self, generation_batch: Any) -> Any:
        """The slice that is due; at the start of an iteration, collect its episodes and assign credit first."""
        if self._step % (self.slices_per_pass * int(self.num_iterations)) == 0 or self._iteration is None:
            self._iteration = self._new_iteration([example["prompt"] for example in generation_batch])
        return self._iteration.slices[self._step % self.slices_per_pass]

    def _new_iteration(self, task_ids: Sequence[str]) -> Iteration:
        number = self.state.global_step // self.args.updates_in_iteration
        self.require_finite_weights()
        rollout, seed = self.play_iteration(number, task_ids)
        self.require_played(rollout.episodes)
        episodes = [episode for episode in rollout.episodes if episode.ended != "failed"]
        play = partial(self.play, self.spec, temperature=self.temperature, seed=seed + 1)
        begun = Records(episodes, end_token=self.codec.stop_token_ids[0])
        branches = play_branches(self.rule, begun, self.spec, play, seed)
        self.require_played(branches.played)
        with self.phases.phase("credit"):
            return self._prepare_iteration(number, seed, rollout, branches)

    def _prepare_iteration(self, number: int, seed: int, rollout: Rollout, branches: Branches) -> Iteration:
        """Assign credit to what was played, and say what there is to say of it."""
        started = time.perf_counter()
        trained = branches.episodes
        require_finite_rewards(trained, self.position())
        rows = build_rows(trained, max_tokens=self.max_row_tokens, final_prompts=self.rule.critic is not None)
        iteration = self._assign_credit(branches, rows, seed)
        if self.critic is not None and number < self.critic_config.critic_warmup_iterations:
            iteration = replace(iteration, trains_policy=False)
        require_finite_credit(iteration, self.position())
        self.save_episodes(rollout.episodes, number)
        self.save_episodes(branches.played, number, "branches")
        if self.args.save_episodes:
            path = self.episode_file(number, "episodes").with_suffix(".credit.npz")
            credit, old = iteration.credit, iteration.old_log_probs
            trace = self._credit_recorder.begin(path, rollout.episodes, trained, rows, credit, old)
            iteration = replace(iteration, trace=trace)
        scored = [without_texts(episode) for episode in rollout.episodes]
        logged = rollout_metrics(self.gather(scored), self.gather(rollout.stats))
        logged |= credit_metrics(iteration.credit, iteration.raw_advantages, self.gather)
        logged |= branch_metrics(self.gather(branches.cost))
        logged["padding_share"] = padding_share(token_budget_batches(rows, self.args.max_tokens_per_micro_batch))
        if not self.use_vllm:
            gap = rows_gap(sampled_log_probs(trained), rows, self._forward.log_probs, self.gather)
            # Servers were started from the weights of the first iteration, and may not take others.
            if self.args.off_policy_correction == "none" and (self._iteration is None or self._servers is not None):
                self.check_sampling_gap(gap)
            logged["sampling_gap"] = gap
        logged["credit_seconds"] = time.perf_counter() - started
        self._record(logged)
        return iteration

    def _assign_credit(self, branches: Branches, rows: Sequence[Row], seed: int) -> Iteration:
        episodes = branches.episodes
        num_steps = sum(episode.num_steps for episode in episodes)
        num_tokens = sum(len(step.response_ids) for episode in episodes for step in episode.steps)
        values = np.zeros(0)
        if self.rule.critic is not None:
            values = self._forward.values(rows, self.rule.critic, num_steps, num_tokens, len(episodes))
            bootstrap = self.critic_config.bootstrap_truncated
            have_value = np.array([has_final_value(e, bootstrap_truncated=bootstrap) for e in episodes], bool)
            values[len(values) - len(episodes) :][~have_value] = 0.0
        sampled, corrects = sampled_log_probs(episodes), self.args.off_policy_correction != "none"
        recompute = self.low_precision or self.args.recompute_log_probs or self.samples_elsewhere or corrects
        old = self._forward.log_probs(rows, num_tokens) if recompute or sampled is None else sampled
        reference = self._forward.reference_log_probs(rows, num_tokens) if self.args.beta else None
        penalty = None if reference is None or self.args.kl_in == "loss" else self.args.beta * (reference - old)
        further = branches.for_records()
        records = Records(episodes, values, penalty, old, **further, end_token=self.codec.stop_token_ids[0])
        credit = self.rule(records)
        check_credit(credit, records, self.rule.critic)
        weights = np.ones(1)
        if self.samples_elsewhere or corrects:
            kind, cap = self.args.off_policy_correction, self.args.off_policy_cap
            weights, mismatch = correction_of(records, sampled, kind=kind, cap=cap, gather=self.gather)
            self._record(mismatch)
        raw = merge_moments(self.gather(moments(credit.advantages)))
        if credit.whiten:
            credit = replace(credit, advantages=whiten(credit.advantages, raw))
        of_terms, kl_weights = loss_weights(
            records.tokens_per_step, records.steps_per_episode, self.args.loss_average, self.args.ratio
        )
        # Slices are put together so that an update has the same episodes however many slices it is split into.
        slices, updates = split_rows(episodes, rows, self.slices_per_pass, seed), self.args.updates_per_iteration
        return Iteration(
            slices=tuple(part for update in range(updates) for part in slices[update::updates]),
            credit=credit,
            raw_advantages=raw,
            weighted_advantages=credit.of_tokens(records.tokens_per_step) * of_terms * weights,
            kl_weights=kl_weights,
            old_log_probs=old,
            reference_log_probs=reference,
            reward_scale=max(1.0, *self.gather(largest_reward(episodes))),
        )
