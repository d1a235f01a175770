"""The servers against clients that mean no good: slow, greedy, many, unclear about where a request ends."""

from __future__ import annotations

import contextlib
import http.client
import json
import resource
import socket
import threading
import time

import httpx
import pytest
from paper_corpora import make_corpus, make_papers, running, serving_papers
from retrieval_corpora import make_passages

from steppo_gym.retrieval import Hit, Passage, open_retriever_for
from steppo_gym.retrieval.remote.client import SearchClient
from steppo_gym.retrieval.remote.search_protocol import RequestLimits
from steppo_gym.retrieval.remote.server import SearchServer
from steppo_gym.storage import deadline_stream, http_server

PASSAGES = make_passages(50)
GOOD = b'{"queries": ["moon"]}'


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture(params=["search", "papers"])
def server(request, tmp_path):
    if request.param == "search":
        with serving() as running_server:
            yield running_server
    else:
        with serving_papers(make_corpus(tmp_path / "papers", make_papers(20))) as running_server:
            yield running_server


def serving(retriever=None, **options):
    return running(SearchServer(retriever or open_retriever_for(PASSAGES), port=0, **options))


def connect(server):
    return socket.create_connection(server.server_address[:2], timeout=20)


def read_answers(connection):
    """Statuses and bodies of all answers until the connection ends."""
    found = []
    # A server that closes before it has read everything resets the connection, behind its answer.
    with contextlib.suppress(ConnectionResetError), connection.makefile("rb") as stream:
        while line := stream.readline():
            headers = http.client.parse_headers(stream)
            found.append((int(line.split()[1]), json.loads(stream.read(int(headers["Content-Length"])) or "{}")))
    return found


def ask(server, request):
    with connect(server) as connection:
        connection.sendall(request)
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_WR)
        return read_answers(connection)


def works(server):
    if isinstance(server, SearchServer):
        return httpx.post(server.url + "/retrieve", content=GOOD, timeout=60).status_code == 200
    return httpx.get(server.url + "/paper/search?query=moon", timeout=60).status_code == 200


def post(headers, body=GOOD, path="/retrieve"):
    lines = [f"POST {path} HTTP/1.1", "Host: x", *headers, "", ""]
    return "\r\n".join(lines).encode("latin-1") + body


@pytest.mark.parametrize("target", ["http://[", "http://[::1", "http://[x]/paper/search?query=a"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_an_address_that_is_none_is_answered(server, method, target):
    ((status, answer),) = ask(server, f"{method} {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    assert status == 400 and "Expected a path" in answer["error"]
    assert works(server)


HIDDEN = b"POST /retrieve HTTP/1.1\r\nContent-Length: 21\r\n\r\n" + GOOD
LENGTH = f"Content-Length: {len(GOOD)}"


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (post([LENGTH, "Transfer-Encoding: chunked"]), 400),
        (post(["Transfer-Encoding: chunked", LENGTH]), 400),
        (post(["Transfer-Encoding: chunked"]), 411),
        (post([LENGTH, "Content-Length: 2"]), 400),
        (post([LENGTH, LENGTH]), 400),
        (post(["Content-Length: +21"]), 411),
        (b"GET /retrieve HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(HIDDEN) + HIDDEN, 400),
        (b"GET /retrieve HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + HIDDEN, 400),
    ],
)
def test_no_request_hides_in_another(request_, status):
    with serving() as server:
        answers = ask(server, request_)
        assert [found for found, _ in answers] == [status]
        assert [found for found, _ in ask(server, post([LENGTH]))] == [200]


@pytest.mark.parametrize("body", [b"[" * 100_000, b'{"a":' * 100_000, b'{"queries": ' + b"[" * 900 + b"]" * 900 + b"}"])
def test_nesting_is_bounded(body):
    with serving() as server:
        ((status, answer),) = ask(server, post([f"Content-Length: {len(body)}"], body))
        assert status == 400 and len(answer["error"]) < 300
        assert works(server)


@pytest.mark.parametrize("part", ["first line", "header", "body"])
def test_a_byte_at_a_time_does_not_hold_a_connection(monkeypatch, part):
    monkeypatch.setattr(deadline_stream, "REQUEST_SECONDS", 0.5)
    whole = post(["Content-Length: 8000000"], b"")
    head = {"first line": b"", "header": b"POST /retrieve HTTP/1.1\r\nX: ", "body": whole}[part]
    with serving() as server, connect(server) as connection:
        begun = time.monotonic()
        connection.sendall(head)
        with pytest.raises(ConnectionError):
            while time.monotonic() - begun < 25:
                connection.sendall(b"x")
                time.sleep(0.05)
        assert time.monotonic() - begun > 0.4
        assert works(server)


def test_requests_one_after_the_other_each_have_their_time(monkeypatch):
    monkeypatch.setattr(deadline_stream, "REQUEST_SECONDS", 2.0)
    with serving() as server, httpx.Client() as client:
        for _ in range(4):
            assert client.post(server.url + "/retrieve", content=GOOD).status_code == 200
            time.sleep(0.75)


def test_heads_are_bounded(server):
    with connect(server) as connection, contextlib.suppress(ConnectionError):
        connection.sendall(b"GET /paper/search HTTP/1.1\r\n")
        # A head within the limits of the standard library: 95 lines, 6 MB.
        for number in range(95):
            connection.sendall(b"X%d: " % number + b"a" * 65_000 + b"\r\n")
        raise AssertionError("all of the head was taken")
    assert works(server)


def test_a_head_that_is_too_long_is_answered(monkeypatch):
    monkeypatch.setattr(deadline_stream, "MAX_HEAD_BYTES", 20_000)
    with serving() as server:
        ((status, answer),) = ask(server, post([f"X{number}: {'a' * 1000}" for number in range(30)]))
        assert status == 431 and answer == {"error": "Too many headers"}
        # What follows a head is not counted.
        (found,) = [status for status, _ in ask(server, post([f"Content-Length: {len(GOOD)}"], GOOD))]
        long = json.dumps({"queries": ["moon"] * 200 + ["x" * 9000] * 5}).encode()
        assert found == 200 and [status for status, _ in ask(server, post([f"Content-Length: {len(long)}"], long))] == [
            200
        ]


def test_silence_ends_a_connection(monkeypatch):
    monkeypatch.setattr(deadline_stream, "IDLE_SECONDS", 0.2)
    with serving() as server, connect(server) as connection:
        assert connection.recv(1) == b""


class Long:
    """Hits of a long text, whatever is asked."""

    def __init__(self, size):
        self.text = "x" * size

    def search(self, queries, k):
        return [[Hit(Passage(str(i), "", self.text), 1.0) for i in range(k)] for _ in queries]

    def close(self):
        pass


def greedy(server):
    """A client that asks for 20 MB and reads nothing."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect(server.server_address[:2])
    body = json.dumps({"queries": ["a"], "topk": 10}).encode()
    connection.sendall(post([f"Content-Length: {len(body)}"], body))
    return connection


def until(condition, seconds=20):
    """Wait for what another thread brings about."""
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    assert condition()


def test_a_client_that_does_not_read_is_left(monkeypatch):
    monkeypatch.setattr(deadline_stream, "REQUEST_SECONDS", 0.5)
    with serving(Long(1_000_000)) as server, greedy(server):
        until(lambda: server._waiting_bytes > 20_000_000)
        until(lambda: not server._connections and server._waiting_bytes == 0, 25)


def test_a_client_that_reads_a_little_is_left(monkeypatch):
    monkeypatch.setattr(deadline_stream, "REQUEST_SECONDS", 0.5)
    with serving(Long(1_000_000)) as server, greedy(server) as connection:
        assert connection.recv(1000)
        begun = time.monotonic()
        while server._connections and time.monotonic() - begun < 30:
            connection.recv(1000)
            time.sleep(0.02)
        assert time.monotonic() - begun < 25


def test_a_client_that_does_not_read_does_not_delay_the_end(monkeypatch):
    monkeypatch.setattr(http_server, "END_SECONDS", 0.3)
    with contextlib.ExitStack() as clients:
        with serving(Long(1_000_000)) as server:
            for _ in range(3):
                clients.enter_context(greedy(server))
            until(lambda: server._waiting_bytes > 60_000_000)
            begun = time.monotonic()
        assert 0.25 < time.monotonic() - begun < 25


def test_answers_that_nobody_takes_are_bounded(monkeypatch):
    monkeypatch.setattr(http_server, "MAX_WAITING_BYTES", 50_000_000)
    monkeypatch.setattr(http_server, "END_SECONDS", 0.1)
    with contextlib.ExitStack() as clients, serving(Long(1_000_000)) as server:
        for _ in range(2):
            clients.enter_context(greedy(server))
        until(lambda: server._waiting_bytes > 40_000_000)
        answer = httpx.post(server.url + "/retrieve", json={"queries": ["a"], "topk": 10})
        assert answer.status_code == 503 and "wait for their clients" in answer.json()["error"]
        assert httpx.post(server.url + "/retrieve", json={"queries": ["a"], "topk": 1}).status_code == 200


def test_connections_are_bounded(monkeypatch):
    monkeypatch.setattr(http_server, "MAX_CONNECTIONS", 5)
    with serving() as server, contextlib.ExitStack() as idle:
        for _ in range(5):
            idle.enter_context(connect(server))
        until(lambda: len(server._connections) == 5)
        with connect(server) as connection:
            assert read_answers(connection) == [(503, {})]
        assert len(server._connections) == 5
        idle.close()
        until(lambda: not server._connections)
        assert works(server)


def test_hits_of_all_queries_together_are_bounded():
    with serving() as server:
        answer = httpx.post(server.url + "/retrieve", json={"queries": ["moon"] * 64, "topk": 1000})
        assert answer.status_code == 400
        assert answer.json() == {"error": "Expected queries times topk to be at most 10000, found 64 times 1000."}
        # The client asks for as many as one answer may have.
        with SearchClient(server.url, max_retries=0) as client:
            queries = [f"moon {word}" for word in ["crew", "dust", "apollo", "rocket"] * 16]
            assert client.search(queries, 1000) == open_retriever_for(PASSAGES).search(queries, 1000)
    with serving(limits=RequestLimits(max_hits=6)) as server:
        assert httpx.post(server.url + "/retrieve", json={"queries": ["moon"] * 2}).status_code == 200
        assert httpx.post(server.url + "/retrieve", json={"queries": ["moon"] * 3}).status_code == 400


def test_long_answers_are_refused_before_they_are_written():
    with serving(Long(1_000_000)) as server:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        answer = httpx.post(server.url + "/retrieve", json={"queries": ["moon"] * 9, "topk": 1000})
        assert answer.status_code == 413 and "Ask for less at once" in answer.json()["error"]
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000


def test_expect_continue_is_answered_at_once():
    with serving() as server, connect(server) as connection:
        connection.sendall(post([LENGTH, "Expect: 100-continue"], b""))
        assert connection.recv(1000).startswith(b"HTTP/1.1 100 ")
        connection.sendall(GOOD)
        assert connection.recv(1000).startswith(b"HTTP/1.1 200 ")


def test_slow_clients_do_not_slow_the_others(monkeypatch):
    monkeypatch.setattr(deadline_stream, "REQUEST_SECONDS", 300.0)
    with serving() as server, contextlib.ExitStack() as slow:
        for _ in range(100):
            slow.enter_context(connect(server)).sendall(b"POST /retr")
        begun = time.monotonic()
        threads = [threading.Thread(target=works, args=(server,)) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert time.monotonic() - begun < 200
