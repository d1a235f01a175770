"""Log-probabilities of given tokens under large vocabularies, where TRL's fused head has no Triton kernel.

With Triton, TRL scores the positions that have a label, in tiles that a kernel changes in place. Elsewhere it scores
all positions in the same tiles with plain operations, which copy a tile several times: gigabytes for 4,096 positions
and 32,768 words. Here the positions with labels are scored, so few at a time that their logits are small.

Small vocabularies and output layers with a bias, a scale or a cap are left to TRL.
"""

from __future__ import annotations

import functools
import types
from typing import Any

import torch
from torch import Tensor
from trl.kernels.chunked_logprob import _use_triton
from trl.trainer.utils import FusedCausalLMOutput

from steppo_gym.trainers.policy.model_limits import base_of

SMALL_VOCABULARY = 8192
"""Up to here TRL's tiles are small."""
TILE_BYTES = 32 * 2**20
"""Of the logits of some positions, in float32; `COPIES` of them are there at once."""
COPIES = 2
IGNORED = -100
"""Label of a token that is not scored."""
_SCALES = ("final_logit_softcapping", "logit_scale", "output_multiplier", "lm_head_multiplier", "logits_scaling")


def score_few_at_a_time(model: Any, temperature: float) -> None:
    """Let a model with TRL's fused head score its labels as said above, where that is of use.

    Args:
        model: of transformers, with or without adapters; None does nothing.
        temperature: the logits are divided by it.
    """
    if model is None or _use_triton(model.device):
        return
    model = base_of(model)
    theirs, text, layer = model.forward, model.config.get_text_config(), model.get_output_embeddings()
    scaled = any(getattr(text, name, None) is not None for name in _SCALES)
    if scaled or getattr(layer, "bias", None) is not None or text.vocab_size <= SMALL_VOCABULARY:
        return

    # Whoever looks at the model's signature sees its own.
    @functools.wraps(type(model).forward)
    def forward(self: Any, *args: Any, fused_lm_head: bool = False, labels: Any = None, **kwargs: Any) -> Any:
        if not fused_lm_head:
            return theirs(*args, **kwargs) if labels is None else theirs(*args, labels=labels, **kwargs)
        hidden = self.base_model(*args, **{**kwargs, "use_cache": False}).last_hidden_state[:, :-1]
        weight = self.get_output_embeddings().weight
        if hasattr(weight, "full_tensor"):
            weight = weight.full_tensor()
        scored = labels[:, 1:] != IGNORED
        found = LabelScores.apply(hidden[scored], weight, labels[:, 1:][scored], temperature)
        # As in TRL: connected with the model even where nothing is scored.
        whole = [part.new_zeros(scored.shape).masked_scatter(scored, part) for part in found]
        return FusedCausalLMOutput(log_probs=whole[0], entropy=whole[1])

    model.forward = types.MethodType(forward, model)


class LabelScores(torch.autograd.Function):
    """Log-probability and entropy, (N,) float32 both, of N labels under softmax(hidden @ weight.T / temperature).

    The entropy has no gradient. Nothing of the size (N, V) is ever there, forward or backward.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, labels: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
        """Scores of (N, H) hidden states under a (V, H) weight; labels (N,) int64."""
        ctx.save_for_backward(hidden, weight, labels)
        kind = hidden.device.type
        ctx.dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else hidden.dtype
        ctx.temperature = temperature
        log_probs, entropy = (hidden.new_empty(len(labels), dtype=torch.float32) for _ in range(2))
        rows = weight.to(ctx.dtype)
        for part in _parts(len(labels), len(weight)):
            log_p = _log_softmax(hidden[part].to(ctx.dtype), rows, temperature)
            log_probs[part] = log_p.gather(1, labels[part, None])[:, 0]
            entropy[part] = -log_p.exp().mul_(log_p).sum(1)
        ctx.mark_non_differentiable(entropy)
        return log_probs, entropy

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor | None, None, None]:  # type: ignore[override]
        """Computes the logits again, a few positions at a time; sums are in float32."""
        hidden, weight, labels = ctx.saved_tensors
        of_hidden = torch.empty_like(hidden)
        of_weight = torch.zeros(weight.shape, device=weight.device) if ctx.needs_input_grad[1] else None
        rows = weight.to(ctx.dtype)
        for part in _parts(len(labels), len(weight)):
            states, given = hidden[part].to(ctx.dtype), (gradients[0][part] / ctx.temperature)[:, None]
            # d log p(label) / d logit = [word is label] - p(word).
            of_logits = _log_softmax(states, rows, ctx.temperature).exp_().mul_(-given)
            of_logits.scatter_add_(1, labels[part, None], given)
            of_hidden[part] = (of_logits.to(ctx.dtype) @ rows).to(hidden.dtype)
            if of_weight is not None:
                of_weight.addmm_(of_logits.t(), states.float())
        return of_hidden, None if of_weight is None else of_weight.to(weight.dtype), None, None


def _parts(positions: int, words: int) -> list[slice]:
    size = max(1, TILE_BYTES // (4 * words))
    return [slice(first, first + size) for first in range(0, positions, size)]


def _log_softmax(states: Tensor, rows: Tensor, temperature: float) -> Tensor:
    return (states @ rows.t()).float().div_(temperature).log_softmax(1)
