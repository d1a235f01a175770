"""New weights for completions servers: written to the folder that they were started from, then loaded from there.

    VLLM_SERVER_DEV_MODE=1 vllm serve /dev/shm/policy --logprobs-mode processed_logprobs

A file beside the weights says which version they are, so that whoever reads the folder can tell.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from steppo_gym.rollouts.served.http_policy import server_root
from steppo_gym.storage.retrying_client import RetryingClient, UnreadableAnswerError

VERSION_FILE = "weights_version.json"
"""In the folder of the weights: {"version": 12}."""

INDEX = "model.safetensors.index.json"
"""Names the file of each weight, where there are several; engines then read no other."""
_WEIGHTS = ("*.safetensors", INDEX, "pytorch_model*")


def write_weights(folder: Path, save: Callable[[Path], Any], version: int) -> None:
    """Put new weights in the place of those in a folder, file by file and each at once.

    Args:
        folder: it is made if need be; files that `save` does not write stay, but for older weights under other names.
        save: writes the weights into a folder.
        version: of the weights.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as new:
        save(Path(new))
        Path(new, VERSION_FILE).write_text(json.dumps({"version": version}))
        names = {path.name for path in Path(new).iterdir()}
        for name in sorted(names - {VERSION_FILE}):
            shutil.move(Path(new, name), folder / name)
        if any(name.endswith(".safetensors") for name in names):
            for path in {path for pattern in _WEIGHTS for path in folder.glob(pattern) if path.name not in names}:
                path.unlink()
        # The version last: it must not be there before the weights are.
        shutil.move(Path(new, VERSION_FILE), folder / VERSION_FILE)


def load_weights(base_url: str) -> None:
    """Let a server load the weights in its folder, and forget what it has computed with others.

    Args:
        base_url: where the server is, with or without the final "/v1".

    Raises:
        InfrastructureError: it does not within ten minutes, or cannot forget as it is still answering somebody;
            boundary "model".
    """
    client = RetryingClient(server_root(base_url), "model", timeout=600.0, max_retries=2, max_concurrency=1)
    try:
        client.request("POST", "/collective_rpc", lambda status, text: None, body={"method": "reload_weights"})
        client.request("POST", "/reset_prefix_cache", _check_forgotten, body={})
    finally:
        client.close()


def _check_forgotten(status: int, text: str) -> None:
    """Refuse an answer that says that the cache stays, as vLLM's does while it has requests; it says so since 0.26."""
    try:
        answer = json.loads(text)
    except ValueError:
        return
    if isinstance(answer, dict) and answer.get("success") is False:
        raise UnreadableAnswerError(
            "that it keeps what it has computed with older weights, as long as requests are under way"
        )
