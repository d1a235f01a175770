"""A chat server on loopback that knows what an expert wrote, and the examples."""

from __future__ import annotations

from pathlib import Path

import pytest
from chat_expert import expert_answer
from json_server import Server


@pytest.fixture
def expert_server():
    """From episodes to a running chat server that plays them; `bodies` of it are the requests."""
    servers = []

    def serve(episodes, *, calls=False):
        servers.append(Server(expert_answer(episodes, calls=calls)))
        return servers[-1].__enter__()

    yield serve
    for server in servers:
        server.__exit__()


@pytest.fixture
def examples(repository, monkeypatch) -> Path:
    """The folder of the examples, from where they can be imported."""
    folder = repository / "examples" / "adapters"
    monkeypatch.syspath_prepend(str(folder))
    return folder
