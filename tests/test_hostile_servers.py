"""The client that asks again, against servers that mean no good: an answer has an end, in bytes and in time."""

from __future__ import annotations

import contextlib
import gzip
import socket
import threading
import time

import pytest

from steppo_gym.errors import InfrastructureError
from steppo_gym.retrieval.remote.client import SearchClient
from steppo_gym.storage import retrying_client


@pytest.fixture(autouse=True)
def surroundings(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(retrying_client, "FIRST_DELAY_SECONDS", 0.01)


@contextlib.contextmanager
def sending(chunks, pause=0.0):
    """The address of a server that answers every connection with these bytes."""

    def answer(connection):
        with connection, contextlib.suppress(OSError):
            connection.recv(65536)
            for chunk in chunks():
                connection.sendall(chunk)
                time.sleep(pause)

    def serve():
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=answer, args=(listener.accept()[0],), daemon=True).start()

    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


def find(url, **options):
    with SearchClient(url, **({"timeout": 0.5, "max_retries": 1} | options)) as client:
        return client.search(["moon"], 3)


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


def test_an_answer_a_byte_at_a_time_is_given_up():
    def chunks():
        yield HEAD + b"Content-Length: 100000\r\n\r\n"
        for _ in range(100_000):
            yield b" "

    begun = time.monotonic()
    with sending(chunks, pause=0.05) as url:
        with pytest.raises(InfrastructureError, match=r"2 attempts.*not all of the answer came in 0.5 seconds"):
            find(url)
        # All of the answer would take more than an hour.
        assert time.monotonic() - begun < 60


@pytest.mark.parametrize("announced", [True, False])
def test_an_answer_without_end_is_given_up(monkeypatch, announced):
    monkeypatch.setattr(retrying_client, "MAX_ANSWER_BYTES", 1_000_000)

    def chunks():
        yield HEAD + (b"Content-Length: 1000000000\r\n\r\n" if announced else b"Connection: close\r\n\r\n")
        for _ in range(1000):
            yield bytes(1_000_000)

    with sending(chunks) as url, pytest.raises(InfrastructureError, match="an answer of more than 1000000 bytes"):
        find(url, timeout=20.0)


def test_a_packed_answer_that_grows_is_given_up(monkeypatch):
    monkeypatch.setattr(retrying_client, "MAX_ANSWER_BYTES", 1_000_000)
    packed = gzip.compress(bytes(50_000_000))

    def chunks():
        yield HEAD + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed) + packed

    with sending(chunks) as url, pytest.raises(InfrastructureError, match="an answer of more than 1000000 bytes"):
        find(url, timeout=20.0)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"\0" * 100,
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=none\r\nContent-Length: 2\r\n\r\n\xff\xfe",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffffffff\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: http://[\r\nContent-Length: 0\r\n\r\n",
    ],
)
def test_what_is_no_answer_is_an_error_of_the_server(answer):
    with sending(lambda: [answer]) as url, pytest.raises(InfrastructureError, match="search: http"):
        find(url)
