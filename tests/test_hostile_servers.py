"""The client that asks again, against servers that mean no good: an answer has an end, in bytes and in time."""

from __future__ import annotations

import gzip
import json
import time

import httpx
import pytest
from byte_server import sending

from steppo_gym.envs.paper_search.semantic_scholar.client import SemanticScholar
from steppo_gym.errors import InfrastructureError, UnsupportedVersionError
from steppo_gym.retrieval import Passage
from steppo_gym.retrieval.remote.client import SearchClient
from steppo_gym.storage import retrying_client
from steppo_gym.storage.client_deadline import Deadline


@pytest.fixture(autouse=True)
def surroundings(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(retrying_client, "FIRST_DELAY_SECONDS", 0.01)


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


def test_a_server_that_has_moved_is_said_to_be_where_it_is():
    moved = b"HTTP/1.1 308 Permanent Redirect\r\nLocation: https://there.example/retrieve\r\nContent-Length: 0\r\n\r\n"
    said = r"refused .* HTTP 308: '', which points to 'https://there.example/retrieve': give that address"
    with sending(lambda: [moved]) as url, pytest.raises(InfrastructureError, match=said):
        find(url)


def endless(head, piece):
    """The start of an answer, and then the same piece again and again."""

    def chunks():
        yield head
        for _ in range(100_000):
            yield piece

    return chunks


@pytest.mark.parametrize(
    "chunks",
    [
        endless(b"", b"H"),
        endless(b"HTTP/1.1 200 OK\r\nX: ", b"a"),
        endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        endless(HEAD + b"Transfer-Encoding: chunked\r\n\r\n1;", b"a"),
        endless(HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\nX: ", b"a"),
        endless(HEAD + b"Content-Encoding: gzip\r\n\r\n" + gzip.compress(b"")[:10], b"\x00\x00\x00\xff\xff"),
    ],
    ids=["first line", "header", "interim answers", "chunk extension", "trailer", "packed nothing"],
)
def test_what_never_becomes_an_answer_is_given_up(chunks):
    late = pytest.raises(InfrastructureError, match=r"not all of the answer came in 0.2 seconds")
    with sending(chunks, pause=0.02) as url, late:
        find(url, timeout=0.2, max_retries=0)


def answering(body, *, head=HEAD):
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return sending(lambda: [head + b"Content-Length: %d\r\n\r\n" % len(content) + content])


@pytest.mark.parametrize("encoding", ["gzip, gzip", "zstd"])
def test_an_answer_packed_in_a_way_that_was_not_asked_for_is_refused(encoding):
    head = HEAD + f"Content-Encoding: {encoding}\r\n".encode()
    with answering(b"{}", head=head) as url, pytest.raises(InfrastructureError, match="an answer packed as '"):
        find(url)


@pytest.mark.parametrize(
    ("charset", "mark"), [("hex", b""), ("idna", b""), ("utf-16", b""), ("utf-8", b"\xef\xbb\xbf")]
)
def test_json_is_read_as_what_it_is_whatever_it_is_called(charset, mark):
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json; charset={charset}\r\n".encode()
    with answering(mark + b'{"result": [[]]}', head=head) as url:
        assert find(url) == [[]]


@pytest.mark.parametrize(
    "hit",
    [
        '{"document": {"id": "1", "contents": "x"}, "score": 1' + "0" * 400 + "}",
        '{"document": {"id": "1", "contents": "x"}, "score": true}',
        '{"document": {"id": true, "contents": "x"}, "score": 1}',
    ],
    ids=["score beyond all floats", "true as a score", "true as an id"],
)
def test_a_hit_that_is_none_is_an_error_of_the_server(hit):
    refused = pytest.raises(InfrastructureError, match="in place of a document with an id and a score")
    with answering(b'{"result": [[%s]]}' % hit.encode()) as url, refused:
        find(url)


def test_halves_of_surrogate_pairs_in_an_answer_become_question_marks():
    with answering(
        rb'{"result": [[{"document": {"id": "\ud800", "contents": "a\ud800\nb\udfff"}, "score": 1}]]}'
    ) as url:
        ((hit,),) = find(url)
        assert hit.passage == Passage("?", "a?", "b?")


@pytest.mark.parametrize(
    "address", ["http://host:99999", "http:///path", "http://" + "a" * 300, "http://[::1", "http://host:80:80"]
)
def test_an_address_that_no_server_has_is_refused_when_it_is_given(address):
    with pytest.raises(ValueError, match="Expected the address of a server"):
        SearchClient(address)


@pytest.mark.parametrize("key", ["secret\n", "sec\nret", "s\u00e9cret", " secret"])
def test_a_key_that_no_header_holds_is_refused_and_not_shown(key):
    with pytest.raises(ValueError, match=r"The header x-api-key cannot be sent") as caught:
        SemanticScholar("http://127.0.0.1:1", api_key=key)
    assert "cret" not in str(caught.value)


def test_a_day_beyond_the_calendar_is_no_time_to_wait():
    assert retrying_client.read_retry_after("Mon, 01 Jan 99999999999999 00:00:00 GMT") is None


@pytest.mark.parametrize("place", ["_mounts", "_transport", "_transport._pool", "_transport._pool._network_backend"])
def test_a_client_that_would_keep_to_no_deadline_is_refused(place):
    with httpx.Client() as client:
        Deadline().bind(client)
        *path, last = place.split(".")
        owner = client
        for name in path:
            owner = getattr(owner, name)
        kept = owner.__dict__.pop(last)
        with pytest.raises(UnsupportedVersionError, match=r"httpx .* cannot be given a deadline.*'httpx<0\.29'"):
            Deadline().bind(client)
        setattr(owner, last, kept)
