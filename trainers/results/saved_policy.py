"""A trained policy out of its folder, for playing without training.

    saved = SavedPolicy.open("runs/key_door-steppo-seed0")  # or .../final, or any folder of transformers
    policy, codec, max_prompt_tokens = saved.load(num_slots=16, temperature=0.0, seed=0)

Where the folder belongs to a run of this package, the run's settings are taken over (longest response, longest prompt,
chat template, precision, keywords of the environments), so that what is played is what the run itself has tested.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from steppo_gym.errors import DataError
from steppo_gym.trainers.finiteness import require_finite_model
from steppo_gym.trainers.policy.chat import ChatCodec
from steppo_gym.trainers.policy.generation import ModelPolicy
from steppo_gym.trainers.policy.model_limits import check_vocabulary, context_limits
from steppo_gym.trainers.policy.sampling_check import try_sampling
from steppo_gym.trainers.reading import reading
from steppo_gym.trainers.results.adapters import has_adapters, load_whole, load_with_adapters
from steppo_gym.trainers.run.console import quiet_libraries

HASHED = ("*.safetensors", "*.bin", "*config.json", "tokenizer.json", "chat_template.jinja", "vocab*", "merges.txt")
"""The files of a model that decide what it writes; "training_args.bin" does not."""
_DOWNLOADED = ("*.safetensors", "*.json", "*.jinja", "*.model", "vocab*", "merges.txt")
"""Of a model on the hub: no weights that only pickle reads, and none of other frameworks."""
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
_PLAIN_TOKENIZERS = ("TokenizersBackend", "PreTrainedTokenizerFast")
_MAX_RESPONSE_TOKENS = 512
_TRIED_TOKENS = 2
"""Of a response before anything is played: the first comes of reading a prompt, the second of what the cache holds."""
_PARTS = ("preset", "config", "model")
"""Of the `config.json` of a run."""


@dataclass(frozen=True)
class SavedPolicy:
    """A model's folder, and the settings of the run that it comes from."""

    folder: Path
    run: Mapping[str, Any] | None
    """The run's `config.json`, None where there is none."""

    @classmethod
    def open(cls, folder: str | Path) -> SavedPolicy:
        """Find the model and its run.

        Args:
            folder: that of a run, whose trained policy is meant, one of its checkpoints, any folder of transformers, or
                the name of a model on the hub, which is fetched into the hub's own cache.

        Raises:
            DataError: there is no model in it, or the hub has none of that name.
        """
        folder = Path(folder)
        # A slip in "runs/mine" is not for the hub.
        if _HUB_NAME.fullmatch(str(folder)) and not folder.parent.exists():
            folder = _fetch(str(folder))
        if (folder / "final").is_dir():
            folder = folder / "final"
        if not any((folder / name).is_file() for name in ("config.json", "adapter_config.json")) or not any(
            next(folder.glob(pattern), None) for pattern in ("*.safetensors", "*.bin")
        ):
            raise DataError(
                "Expected the folder of a model, with config.json and *.safetensors, or of a finished run, with final/ "
                f"in it, or the name of a model on the hub, got {folder}."
            )
        path = folder.resolve().parent / "config.json"
        try:
            record = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
        except ValueError as error:
            raise DataError(f"{path} is not readable JSON ({error}).") from error
        # Other folders too have a config.json beside them.
        of_run = isinstance(record, dict) and all(isinstance(record.get(part), dict) for part in _PARTS)
        return cls(folder, record if of_run else None)

    @property
    def environment(self) -> str | None:
        """Id of the environment that the policy was trained in, None if unknown."""
        return None if self.run is None else self.run["preset"]["env_id"]

    @property
    def env_kwargs(self) -> dict[str, Any]:
        """Keywords of the run's environments, none without a run.

        Raises:
            DataError: the run did not write them down.
        """
        if self.run is None:
            return {}
        if "env_kwargs" not in self.run:
            raise DataError(
                f"The run of {self.folder} is of an older version and does not say how its environments were made. "
                "Copy the model out of the run, and give --env, --env_args and --max_tokens."
            )
        return dict(self.run["env_kwargs"])

    @property
    def test_splits(self) -> tuple[str, ...]:
        """The splits that the run was tested on, none without a run."""
        if self.run is None:
            return ()
        preset = self.run["preset"]
        names = preset["official_splits"] if self.env_kwargs.get("data") is not None else {}
        return tuple(names.get(split, split) for split in preset["test_splits"])

    @property
    def max_response_tokens(self) -> int:
        """Longest response."""
        return int(self._setting("max_completion_length") or _MAX_RESPONSE_TOKENS)

    @property
    def num_slots(self) -> int | None:
        """Environments that the run played at the same time, None if unknown."""
        return self._setting("num_slots")

    def hash(self) -> str:
        """SHA-256 of names and contents of the files that decide what the model writes."""
        digest = hashlib.sha256()
        paths = {path for pattern in HASHED for path in self.folder.glob(pattern) if path.name != "training_args.bin"}
        for path in sorted(paths):
            with path.open("rb") as file:
                digest.update(f"{path.name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
        return digest.hexdigest()

    def load(
        self, *, num_slots: int, temperature: float, seed: int, max_response_tokens: int | None = None
    ) -> tuple[ModelPolicy, ChatCodec, int | None]:
        """The policy, its codec, and the longest prompt in tokens.

        Args:
            num_slots: of the rollout.
            temperature: 0 for greedy.
            seed: of the sampling.
            max_response_tokens: in place of the run's.

        Raises:
            DataError: the files are damaged, or do not fit together.
            NonFiniteError: a weight is no number.
            ValueError: the model cannot be sampled from here.
        """
        quiet_libraries()
        limit = max_response_tokens or self.max_response_tokens
        chosen = (self._setting("model_init_kwargs") or {}).get("dtype")
        dtype = "auto" if self.run is None else chosen or self.run["model"].get("dtype") or "float32"
        load: Any = load_with_adapters if has_adapters(self.folder) else load_whole
        with reading(f"The model in {self.folder}"):
            model = load(self.folder, dtype=dtype, local_files_only=True)
        model = model.to("cuda" if torch.cuda.is_available() else "cpu").eval()
        ends = model.generation_config.eos_token_id
        codec = load_codec(
            self.folder, self._setting("chat_template_kwargs"), [ends] if isinstance(ends, int) else ends or ()
        )
        own = codec.tokenizer.pad_token_id
        pad_token_id = int(codec.tokenizer.eos_token_id if own is None else own)  # type: ignore[arg-type]
        require_finite_model(model, str(self.folder))
        check_vocabulary(model, pad_token_id, codec)
        sampler = partial(
            ModelPolicy,
            model,
            stop_token_ids=codec.stop_token_ids,
            pad_token_id=pad_token_id,
            temperature=temperature,
            seed=seed,
            autocast=self._autocast(model.device.type),
        )
        try_sampling(sampler(num_slots=3, max_response_tokens=min(limit, _TRIED_TOKENS)), codec)
        policy = sampler(num_slots=num_slots, max_response_tokens=limit)
        return policy, codec, context_limits(model, self._setting("max_prompt_tokens"), limit)[0]

    def _setting(self, name: str) -> Any:
        return None if self.run is None else self.run["config"].get(name)

    def _autocast(self, device: str) -> Callable[[], AbstractContextManager[Any]]:
        """The precision of the run's trainer."""
        for name, dtype in (("bf16", torch.bfloat16), ("fp16", torch.float16)):
            if self._setting(name):
                return partial(torch.autocast, device, dtype)
        return nullcontext


def _fetch(name: str) -> Path:
    """The folder of a model of the hub, in the hub's cache."""
    try:
        return Path(snapshot_download(name, allow_patterns=list(_DOWNLOADED)))
    except (OSError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise DataError(f"There is no folder {name}, and no such model comes from the hub: {reason}") from error


def _ends_of_model(folder: Path) -> list[int]:
    """What ends a response of the model beside a tokenizer, nothing if there is none; its server stops there too."""
    path = folder / "generation_config.json"
    if not path.is_file():
        return []
    with reading(str(path)):
        ends = json.loads(path.read_text(encoding="utf-8")).get("eos_token_id")
    return [ends] if isinstance(ends, int) else list(ends or ())


def load_codec(
    folder: Path, template_arguments: Mapping[str, Any] | None = None, stop_token_ids: Any = ()
) -> ChatCodec:
    """The codec of a tokenizer in a folder.

    Raises:
        DataError: there is none.
    """
    path = folder / "tokenizer_config.json"
    if not path.is_file():
        raise DataError(f"Expected the folder of a tokenizer, with tokenizer_config.json, got {folder}.")
    # By name, because AutoTokenizer would replace its pre-tokenizer by that of the model type.
    with reading(str(path)):
        plain = json.loads(path.read_text(encoding="utf-8")).get("tokenizer_class") in _PLAIN_TOKENIZERS
    kind: Any = PreTrainedTokenizerFast if plain else AutoTokenizer
    with reading(f"The tokenizer in {folder}"):
        tokenizer: PreTrainedTokenizerBase = kind.from_pretrained(folder, padding_side="left", local_files_only=True)
    ends = dict.fromkeys([tokenizer.eos_token_id, *stop_token_ids, *_ends_of_model(folder)])
    return ChatCodec(tokenizer, dict(template_arguments or {}), [int(end) for end in ends if end is not None])  # type: ignore[arg-type]
