"""A causal language model for the completions server of tests, without a cache."""

from __future__ import annotations

import threading

import torch
from transformers import Qwen3ForCausalLM

# Transformers makes a model empty by changing what torch does for all threads.
LOADING = threading.Lock()


class ServedModel:
    """Its log-probabilities are those of a plain forward pass."""

    def __init__(self, folder):
        with LOADING:
            self.model = Qwen3ForCausalLM.from_pretrained(folder).eval()

    @torch.no_grad()
    def log_probs(self, token_ids):
        logits = self.model(torch.tensor([list(token_ids)]), logits_to_keep=1).logits[0, -1]
        return logits.double().log_softmax(-1).numpy()


def loader(start):
    """What a server is given to load: the weights in its folder, those it was started with before any were pushed."""
    return lambda folder: ServedModel(start if folder is None else folder)
