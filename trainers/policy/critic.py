"""The critic: a backbone with a linear head that reads a value at every position.

StepPO reads it at the last token of a prompt, before the first token of the response (arXiv 2604.18401); token-level
PPO reads it before every response token. The head starts at zero, so the first advantages are those of a critic that
knows nothing.

There are three kinds. They differ in what the critic keeps beside the policy:

| kind | backbone | trained |
|---|---|---|
| `full` | a copy of the policy's | all of it |
| `lora` | the policy's frozen weights, or a frozen copy where the policy trains all of its own | adapters and head |
| `head` | the policy itself, as it is when it is asked, without a gradient | the head |
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from steppo_gym.trainers.critic_config import CriticKind
from steppo_gym.trainers.dropout import disable_dropout
from steppo_gym.trainers.policy.model_limits import base_of

ADAPTER_RANK = 16
"""Of the critic's adapters where the policy has none to take the settings from."""


class Critic(nn.Module):
    """Values of all prefixes of a row.

    Args:
        policy: a causal language model, with or without PEFT adapters; never changed here.
        kind: see above.

    Raises:
        ValueError: an unknown kind, or PEFT is missing for `lora`.
    """

    def __init__(self, policy: Any, kind: CriticKind = "full") -> None:
        super().__init__()
        self.kind = kind
        if kind == "full":
            self.backbone = _without_adapters(copy.deepcopy(policy)).base_model.requires_grad_(True)
        elif kind == "lora":
            self.backbone = _with_own_adapters(policy)
        elif kind == "head":
            self.follow(policy)
        else:
            raise ValueError(f"critic must be full, lora or head, got {kind!r}.")
        # Not `hidden_size`: the last hidden states of some families are as narrow as their embeddings.
        self.head = _ValueHead(base_of(policy).get_output_embeddings().weight.shape[1], 1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None) -> Tensor:
        """Values (B, T) float32: entry (b, t) values the state that tokens 0..t of row b describe."""
        hidden = self._hidden(input_ids=input_ids, attention_mask=attention_mask, use_cache=False)
        return self.head(hidden.to(self.head.weight.dtype))

    def follow(self, policy: Any) -> None:
        """Let a `head` read the hidden states of another policy object; the other kinds have a backbone."""
        # In a tuple, so that the policy's parameters do not become the critic's.
        self._policy = (policy,)

    def _hidden(self, **inputs: Any) -> Tensor:
        if self.kind != "head":
            return self.backbone(**inputs).last_hidden_state
        kept: list[Tensor] = []
        backbone: nn.Module = base_of(self._policy[0]).base_model
        # OPT passes over the module around its decoder.
        backbone = getattr(backbone, "decoder", backbone)
        handle = backbone.register_forward_hook(lambda _, __, out: kept.append(out.last_hidden_state))
        try:
            # Through the whole policy, which gathers its weights where they are sharded; one position costs nothing.
            with torch.no_grad(), _evaluating(self._policy[0]) as policy:
                policy(**inputs, logits_to_keep=1)
        finally:
            handle.remove()
        return kept[0]

    def checkpoint_activations(self, kwargs: Mapping[str, Any] | None = None) -> None:
        """Keep the inputs of layers alone and run the layers again for the gradient; the values stay the same."""
        if self.kind == "head":
            return
        # Layers do so in training mode only, in which dropout would come to life.
        disable_dropout(self.backbone)
        self.backbone.train()
        run_layers_again(self.backbone, kwargs)

    def trained_state(self) -> dict[str, Tensor]:
        """The weights of a checkpoint: all but those that never change."""
        frozen = self._frozen()
        return {name: weight.contiguous() for name, weight in self.state_dict().items() if name not in frozen}

    def load_trained_state(self, state: Mapping[str, Tensor]) -> None:
        """Take over what `trained_state` gave.

        Raises:
            ValueError: it is that of a critic of another kind or size.
        """
        expected = self.state_dict().keys() - self._frozen()
        if state.keys() != expected:
            other = sorted(state.keys() ^ expected)
            raise ValueError(
                f"The checkpoint's critic is not of the kind {self.kind}: {len(other)} weights are only in one, "
                f"such as {other[0]}. Resume with the --critic that the run began with."
            )
        self.load_state_dict(dict(state), strict=False)

    def _frozen(self) -> set[str]:
        return {name for name, parameter in self.named_parameters() if not parameter.requires_grad}


class _ValueHead(nn.Linear):
    """Gives (...) for (..., H) hidden states, in float32 under autocast too: advantages are small differences."""

    def forward(self, input: Tensor) -> Tensor:
        with torch.autocast(input.device.type, enabled=False):
            # A tensor of its own: FSDP warns of modules that return views.
            return super().forward(input).squeeze(-1).float().clone()


def run_layers_again(model: Any, kwargs: Mapping[str, Any] | None = None) -> None:
    """Let a model of transformers in training mode keep the inputs of its layers alone."""
    # Transformers before 5.20 know it by its older name.
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable(dict(kwargs) if kwargs else {"use_reentrant": False})


def default_kind(policy: Any) -> CriticKind:
    """`lora` for a policy with adapters, whose user has no room for a second model that is trained; else `full`."""
    return "lora" if hasattr(policy, "peft_config") else "full"


def _without_adapters(policy: Any) -> Any:
    """The model of transformers in a copy, whose adapters are thrown away."""
    return policy.unload() if hasattr(policy, "get_base_model") else policy


def _with_own_adapters(policy: Any) -> Any:
    """A backbone of modules of its own, whose frozen weights are the policy's where those are frozen too.

    With modules of its own a backward pass that runs layers again runs the right adapters, whichever model was called
    last.
    """
    try:
        from peft import inject_adapter_in_model
    except ImportError as error:
        raise ValueError("--critic lora needs PEFT. Run `pip install 'steppo-gym[peft]'`.") from error
    shared = {id(parameter): parameter for parameter in policy.parameters() if not parameter.requires_grad}
    model = _without_adapters(copy.deepcopy(policy, shared)).requires_grad_(False)
    # Into the whole model, from which the names of the policy's target modules are counted.
    return inject_adapter_in_model(_adapter_config(policy), model, adapter_name="critic").base_model


def _adapter_config(policy: Any) -> Any:
    """The policy's own LoRA settings without dropout; of a policy without LoRA, adapters in all linear layers."""
    from peft import LoraConfig

    given = getattr(policy, "peft_config", {}).get("default")
    if not isinstance(given, LoraConfig):
        return LoraConfig(r=ADAPTER_RANK, lora_alpha=2 * ADAPTER_RANK, target_modules="all-linear")
    config = copy.deepcopy(given)
    # Without its task, which is to generate, and without heads and embeddings that are trained beside the adapters.
    config.task_type, config.modules_to_save, config.lora_dropout, config.inference_mode = None, None, 0.0, False
    return config


@contextlib.contextmanager
def _evaluating(model: nn.Module) -> Iterator[nn.Module]:
    training = model.training
    model.eval()
    try:
        yield model
    finally:
        model.train(training)
