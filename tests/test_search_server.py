"""The client and the server of Search-R1's /retrieve, each against the other and against what goes wrong."""

from __future__ import annotations

import contextlib
import http.client
import json
import logging
import multiprocessing
import signal
import socket
import subprocess
import sys
import threading
import time
from functools import partial

import httpx
import numpy as np
import pytest
from json_server import Server
from retrieval_corpora import make_passages

from steppo_gym.cli import main
from steppo_gym.errors import InfrastructureError
from steppo_gym.retrieval import Hit, Passage, open_retriever, open_retriever_for
from steppo_gym.retrieval.remote.client import SearchClient
from steppo_gym.retrieval.remote.search_protocol import RequestLimits
from steppo_gym.retrieval.remote.server import SearchServer
from steppo_gym.retrieval.retriever import MAX_QUERY_CHARACTERS
from steppo_gym.storage import http_server, retrying_client
from steppo_gym.testing.adversarial_texts import adversarial_texts

PASSAGES = [*make_passages(50), Passage("odd", 'A "title"\nof two lines', "moon \0 月\n\nlast")]


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,::1")


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(retrying_client, "FIRST_DELAY_SECONDS", 0.01)


@contextlib.contextmanager
def serving(retriever=None, **options):
    retriever = retriever or open_retriever_for(PASSAGES)
    with SearchServer(retriever, port=0, **options) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def server():
    with serving() as running:
        yield running


def post(server, body, path="/retrieve", **headers):
    content = body if isinstance(body, bytes | str) else json.dumps(body)
    answer = httpx.post(server.url + path, content=content, headers=headers)
    return answer.status_code, answer.json()


def answers(*documents):
    """What a server of the contract answers to one query."""
    return {"result": [[{"document": document, "score": 1.5} for document in documents]]}


def find(server, query="moon", k=3, **options):
    options = {"timeout": 5.0, "max_retries": 2} | options
    with SearchClient(server if isinstance(server, str) else server.url, **options) as client:
        return client.search([query], k)[0]


def test_what_comes_through_the_server_is_what_the_index_finds(server):
    queries = ["moon crew", "", "unheard", "apollo 8", "月", "moon\0crew \ud800"]
    with SearchClient(server.url) as client:
        for k in (1, 3, 60):
            assert client.search(queries, k) == open_retriever_for(PASSAGES).search(queries, k)
        assert client.search([], 3) == []
        assert client.search(["月"], 3)[0][0].passage == PASSAGES[-1]


def test_a_number_of_numpy_is_one(server):
    with SearchClient(server.url) as client:
        assert client.search(["moon"], np.int64(2)) == client.search(["moon"], 2)


def test_hostile_queries_come_through(server):
    queries = [text for _, text in adversarial_texts("search", "search", "query")]
    with SearchClient(server.url) as client:
        assert client.search(queries, 3) == open_retriever_for(PASSAGES).search(queries, 3)
        assert client.search(["moon " * 10**5], 3) == open_retriever_for(PASSAGES).search(["moon " * 10**5], 3)


@pytest.mark.parametrize("ending", ["", "/", "/retrieve", "/retrieve/"])
def test_an_address_is_a_retriever(server, ending):
    with open_retriever(server.url + ending) as client:
        assert client.search(["moon"], 2) == open_retriever_for(PASSAGES).search(["moon"], 2)


def test_messages_are_those_of_the_contract(server):
    (hits,) = open_retriever_for(PASSAGES).search(["crew"], 3)
    status, answer = post(server, {"queries": ["crew", "?"], "topk": 3, "return_scores": True, "more": 1})
    assert status == 200
    assert answer == {
        "result": [
            [
                {
                    "document": {
                        "id": hit.passage.id,
                        "contents": f'"{hit.passage.title}"\n{hit.passage.text}',
                        "title": hit.passage.title,
                        "text": hit.passage.text,
                    },
                    "score": hit.score,
                }
                for hit in hits
            ],
            [],
        ]
    }
    bare = post(server, {"queries": ["crew"], "topk": 3})
    assert bare == (200, {"result": [[item["document"] for item in answer["result"][0]]]})


@pytest.mark.parametrize("topk", [{}, {"topk": None}, {"topk": 0}])
def test_without_topk_the_default_counts(server, topk):
    assert len(post(server, {"queries": ["moon"], **topk})[1]["result"][0]) == 3
    with serving(default_topk=5) as other:
        assert len(post(other, {"queries": ["moon"], **topk})[1]["result"][0]) == 5


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("", "Expected a JSON object."),
        ("<html>", "Expected a JSON object."),
        (b"\xff\xfe\xfd", "Expected a JSON object."),
        ("[" * 100_000, "Expected a JSON object."),
        ([], "Expected a JSON object, found []."),
        ({}, 'Expected "queries" to be a list of strings, found None.'),
        ({"queries": "moon"}, "a list of strings, found 'moon'"),
        ({"queries": ["moon", 1]}, "a list of strings, found ['moon', 1]"),
        ({"queries": ["moon"] * 5}, "Expected at most 4 queries, found 5."),
        ({"queries": ["moon", "x" * 21]}, "Expected at most 20 characters a query, found 21."),
        ({"queries": ["moon"], "topk": -1}, "from 0 to 9, found -1."),
        ({"queries": ["moon"], "topk": 10}, "from 0 to 9, found 10."),
        ({"queries": ["moon"], "topk": True}, "from 0 to 9, found True."),
        ({"queries": ["moon"], "topk": "3"}, "from 0 to 9, found '3'."),
        ({"queries": ["moon"], "topk": 1.5}, "from 0 to 9, found 1.5."),
        ({"queries": ["moon"], "return_scores": 1}, '"return_scores" to be true or false, found 1.'),
    ],
)
def test_bad_requests_are_told_why(body, message):
    limits = RequestLimits(max_body_bytes=200_000, max_queries=4, max_query_characters=20, max_topk=9)
    with serving(limits=limits) as limited:
        status, answer = post(limited, body)
        assert status == 400
        assert message in answer["error"]
        assert list(answer) == ["error"]
        assert post(limited, {"queries": ["x" * 20] * 4, "topk": 9})[0] == 200


def raw(server, request):
    """Status and JSON of the answer to the bytes of a request."""
    with socket.create_connection(server.server_address[:2], timeout=10) as connection:
        connection.sendall(request)
        connection.shutdown(socket.SHUT_WR)
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        return answer.status, json.loads(answer.read()), answer.headers["Connection"]


@pytest.mark.parametrize(
    ("head", "status", "message"),
    [
        ("POST /retrieve HTTP/1.1\r\nHost: x", 411, "Expected a Content-Length header."),
        ("POST /retrieve HTTP/1.1\r\nTransfer-Encoding: chunked", 411, "Expected a Content-Length header."),
        ("POST /retrieve HTTP/1.1\r\nContent-Length: -1", 411, "Expected a Content-Length header."),
        ("POST /retrieve HTTP/1.1\r\nContent-Length: ²", 411, "Expected a Content-Length header."),
        ("POST /retrieve HTTP/1.1\r\nContent-Length: 8000001", 413, "Expected at most 8000000 bytes."),
        (f"POST /retrieve HTTP/1.1\r\nContent-Length: {'9' * 9000}", 413, "Expected at most 8000000 bytes."),
        ("POST /retrieve HTTP/1.1\r\nContent-Length: 99", 400, "Expected 99 bytes, found 0."),
        ("POST /search HTTP/1.1\r\nContent-Length: 2", 404, "Expected POST /retrieve."),
        ("GET /retrieve HTTP/1.1\r\nHost: x", 405, "Expected POST /retrieve."),
        ("DELETE /retrieve HTTP/1.1\r\nHost: x", 501, "Unsupported method"),
        ("GET / HTTP/3.0", 505, "Invalid HTTP version"),
        ("\0\1\2", 400, "Bad request"),
        (f"GET /{'x' * 70_000} HTTP/1.1", 414, "Too Long"),
        (f"GET / HTTP/1.1\r\n{'x' * 70_000}: 1", 431, "Line too long"),
    ],
)
def test_what_is_no_request_is_refused_and_hung_up(server, head, status, message):
    found = raw(server, f"{head}\r\n\r\n".encode("latin-1"))
    assert found[0] == status
    assert message in found[1]["error"]
    assert found[2] == "close"
    assert post(server, {"queries": ["moon"]})[0] == 200


def test_it_listens_on_the_loopback_interface_alone(server):
    assert server.server_address[0] == "127.0.0.1"
    assert server.url == f"http://127.0.0.1:{server.server_address[1]}"


def test_an_address_of_version_six():
    if not socket.has_ipv6:
        pytest.skip("no IPv6")
    try:
        with serving(host="::1") as other:
            assert find(other) == open_retriever_for(PASSAGES).search(["moon"], 3)[0]
    except OSError:
        pytest.skip("no IPv6 loopback")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"port": -1}, "port must be from 0 to 65535, got -1"),
        ({"port": 70_000}, "port must be from 0 to 65535, got 70000"),
        ({"default_topk": 0}, "default_topk must be from 1 to 1000, got 0"),
        ({"default_topk": 1001}, "default_topk must be from 1 to 1000"),
    ],
)
def test_options_outside_their_range(options, message):
    with pytest.raises(ValueError, match=message):
        SearchServer(open_retriever_for(PASSAGES), **options)
    with pytest.raises(ValueError, match="max_queries must be at least 1, got 0"):
        RequestLimits(max_queries=0)


class BrokenRetriever:
    def __init__(self, error):
        self.error = error

    def search(self, queries, k):
        raise self.error

    def close(self):
        pass


@pytest.mark.parametrize(
    ("error", "status", "message", "logged"),
    [
        (InfrastructureError("search", "down"), 502, "search: down", False),
        (RuntimeError("a fault"), 500, "RuntimeError: a fault", True),
    ],
)
def test_a_retriever_that_fails_does_not_end_the_server(caplog, error, status, message, logged):
    with serving(BrokenRetriever(error)) as broken, caplog.at_level(logging.ERROR):
        for _ in range(2):
            assert post(broken, {"queries": ["moon"]}) == (status, {"error": message})
    assert len(caplog.records) == 2 * logged


def test_a_server_before_a_server(server):
    with SearchClient(server.url) as client, serving(client) as proxy:
        assert find(proxy) == open_retriever_for(PASSAGES).search(["moon"], 3)[0]


def test_many_clients_at_once(server):
    expected = open_retriever_for(PASSAGES).search(["moon crew"], 5)
    found = []

    def ask():
        with SearchClient(server.url, max_retries=0) as client:
            found.extend(client.search(["moon crew"], 5) == expected for _ in range(5))

    threads = [threading.Thread(target=ask) for _ in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * 160


def test_closing_lets_answers_out_and_hangs_up_on_idle_clients(monkeypatch):
    monkeypatch.setattr(http_server, "END_SECONDS", 100.0)
    begun = threading.Event()

    class Slow(BrokenRetriever):
        def search(self, queries, k):
            begun.set()
            time.sleep(0.3)
            return [[Hit(PASSAGES[0], 1.0)]]

    found = []
    with serving(Slow(None)) as slow:
        idle = socket.create_connection(slow.server_address[:2])
        thread = threading.Thread(target=lambda: found.append(find(slow, max_retries=0)))
        thread.start()
        assert begun.wait(5)
        closing = time.monotonic()
    assert time.monotonic() - closing < 50
    thread.join()
    assert found == [[Hit(PASSAGES[0], 1.0)]]
    with idle:
        assert idle.recv(1) == b""
    with pytest.raises(OSError):
        socket.create_connection(slow.server_address[:2])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_serves_until_a_signal(tmp_path, number):
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text("".join(json.dumps(vars(passage)) + "\n" for passage in PASSAGES))
    code = "import sys; from steppo_gym.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "serve-search", str(corpus), "--port", "0", "--topk", "4"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        line = process.stdout.readline()
        url = line.split(" on ")[1].split("/retrieve")[0]
        assert line == f"Serving {corpus} on {url}/retrieve; Ctrl-C ends it.\n"
        assert find(url) == open_retriever_for(PASSAGES).search(["moon"], 3)[0]
        assert len(httpx.post(f"{url}/retrieve", json={"queries": ["moon"]}).json()["result"][0]) == 4
        process.send_signal(number)
        assert process.communicate(timeout=20) == ("Stopped.\n", "")
        assert process.returncode == 0
    finally:
        process.kill()
        process.communicate()


def test_the_command_explains_what_is_wrong(tmp_path, capsys):
    assert main(["serve-search", str(tmp_path / "none.jsonl")]) == 1
    assert "found no such file" in capsys.readouterr().err
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text('{"title": "Moon", "text": "dust"}')
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert main(["serve-search", str(corpus), "--port", str(taken.getsockname()[1])]) == 1
    assert "in use" in capsys.readouterr().err


def test_the_client_sends_the_contract():
    def well(number, body):
        return 200, {}, answers({"id": 7, "contents": '"Moon"\nDust.'})

    with Server(well) as other:
        assert find(other, "x" * 2 * MAX_QUERY_CHARACTERS) == [Hit(Passage("7", "Moon", "Dust."), 1.5)]
    assert other.paths == ["/retrieve"]
    assert other.headers[0]["Content-Type"] == "application/json"
    assert other.bodies == [{"queries": ["x" * MAX_QUERY_CHARACTERS], "topk": 3, "return_scores": True}]


def test_many_queries_go_in_several_requests():
    def echoes(number, body):
        items = [[{"document": {"id": query, "contents": query}, "score": 1}] for query in body["queries"]]
        return 200, {}, {"result": items}

    queries = [f"query {i}" for i in range(150)]
    with Server(echoes) as other, SearchClient(other.url) as client:
        assert [hits[0].passage.id for hits in client.search(queries, 1)] == queries
    assert [len(body["queries"]) for body in other.bodies] == [64, 64, 22]


def test_more_hits_than_asked_for_are_cut():
    many = answers(*({"id": str(i), "contents": ""} for i in range(9)))
    with Server(lambda number, body: (200, {}, many)) as other:
        assert [hit.passage.id for hit in find(other, k=2)] == ["0", "1"]


NONSENSE = {
    "HTML": ("<html><body>Bad gateway</body></html>", "'<html><body>Bad gateway.*, which is not JSON"),
    "nothing": ("", "'', which is not JSON"),
    "cut": ('{"result": [[{"docu', "which is not JSON"),
    "deep": ("[" * 100_000, "which is not JSON"),
    "a list": ([], "without 1 lists in its result"),
    "an error": ({"error": "down"}, "without 1 lists in its result"),
    "too few": ({"result": []}, "without 1 lists in its result"),
    "too many": ({"result": [[], []]}, "without 1 lists in its result"),
    "no list": ({"result": ["x"]}, "without 1 lists in its result"),
    "bare documents": ({"result": [[{"id": "1", "contents": "x"}]]}, "in place of a document with an id and a score"),
    "no id": (answers({"contents": "x"}), "in place of a document with an id and a score"),
    "no contents": (answers({"id": "1"}), "a document without contents"),
    "wrong contents": (answers({"id": "1", "contents": None}), "a document without contents"),
    "no number": ({"result": [[{"document": {"id": "1", "contents": "x"}, "score": "1"}]]}, "an id and a score"),
    "not finite": ('{"result": [[{"document": {"id": "1", "contents": "x"}, "score": NaN}]]}', "an id and a score"),
}


@pytest.mark.parametrize("kind", NONSENSE)
def test_answers_that_make_no_sense_are_asked_for_again_and_then_errors(quick, kind):
    content, message = NONSENSE[kind]
    expected = pytest.raises(InfrastructureError, match=rf"no response in 3 attempts.*{message}")
    with Server(lambda number, body: (200, {}, content)) as other, expected as caught:
        find(other)
    assert len(other.bodies) == 3
    assert caught.value.boundary == "search"
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize("kind", NONSENSE)
def test_one_answer_without_sense_does_no_harm(quick, kind):
    def recovers(number, body):
        return 200, {}, NONSENSE[kind][0] if number == 1 else answers({"id": "1", "contents": "x"})

    with Server(recovers) as other:
        assert [hit.passage.id for hit in find(other)] == ["1"]
    assert other.bodies[0] == other.bodies[1]


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503])
def test_passing_trouble_is_tried_again(quick, status):
    def recovers(number, body):
        return (status, {}, "") if number <= 2 else (200, {}, answers({"id": "1", "contents": "x"}))

    with Server(recovers) as other:
        assert len(find(other)) == 1
    assert len(other.bodies) == 3


def test_a_refused_request_is_not_sent_again(quick):
    expected = pytest.raises(InfrastructureError, match=r"search: .*refused.*HTTP 400: 'Expected \"topk\"")
    with serving(limits=RequestLimits(max_topk=5)) as limited, expected:
        find(limited, k=6)


def test_a_slow_server_times_out(quick):
    def sleeps(number, body):
        time.sleep(0.5)
        return 200, {}, answers()

    with Server(sleeps) as other, pytest.raises(InfrastructureError, match=r"search: .*2 attempts.*ReadTimeout"):
        find(other, timeout=0.1, max_retries=1)


def test_a_server_that_is_down(quick):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://user:password@127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(InfrastructureError, match=r"ConnectError.*Check that the server runs") as caught:
        find(url)
    assert "password" not in str(caught.value)


def test_concurrency_is_bounded():
    def slowly(number, body):
        time.sleep(0.05)
        return 200, {}, answers()

    with Server(slowly) as other, SearchClient(other.url, max_concurrency=3) as client:
        threads = [threading.Thread(target=client.search, args=(["moon"], 1)) for _ in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(other.bodies) == 12
    assert other.most_active == 3


@pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")
def test_a_forked_process_has_connections_of_its_own(monkeypatch):
    """Two processes that write to one connection read each other's answers."""
    with Server(lambda number, body: (200, {}, answers())) as other, SearchClient(other.url) as client:
        accept, connections = other.http.get_request, []
        monkeypatch.setattr(other.http, "get_request", lambda: connections.append("one more") or accept())
        search = partial(client.search, ["moon"], 1)
        search()
        search()
        assert len(connections) == 1
        child = multiprocessing.get_context("fork").Process(target=search)
        child.start()
        child.join()
        assert child.exitcode == 0 and len(connections) == 2
        search()
        assert len(connections) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"base_url": "127.0.0.1:8000"}, "must start with http:// or https://, got '127.0.0.1:8000/retrieve'"),
        ({"base_url": "http://127.0.0.1:x"}, "Expected the address of a server, got 'http://127.0.0.1:x"),
        ({"timeout": 0}, "timeout must be positive"),
        ({"max_retries": -1}, "max_retries must be 0 or more"),
        ({"max_concurrency": 0}, "max_concurrency must be at least 1"),
    ],
)
def test_arguments_outside_their_range(arguments, message):
    with pytest.raises(ValueError, match=message):
        SearchClient(**({"base_url": "http://127.0.0.1:1"} | arguments))
    with SearchClient("http://127.0.0.1:1") as client, pytest.raises(ValueError, match="k must be at least 1"):
        client.search(["moon"], 0)


def test_a_server_that_asks_for_more_than_a_step_can_wait_is_given_up():
    message = r"asks to wait 60 s \(HTTP 429: 'slow down'\), more than the 5 s"
    with (
        Server(lambda number, body: (429, {"Retry-After": "60"}, "slow down")) as server,
        contextlib.closing(SearchClient(server.url)) as client,
        pytest.raises(InfrastructureError, match=message),
    ):
        client.search(["moon"], 3)
    assert len(server.bodies) == 1
