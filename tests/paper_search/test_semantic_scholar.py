"""The client of the Semantic Scholar Graph API, against recorded answers and against what goes wrong."""

from __future__ import annotations

import itertools
import json
import threading
import time
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from json_server import Server
from paper_corpora import make_citations, make_corpus, make_papers, serving_papers

from steppo_gym.envs.paper_search.papers import Paper
from steppo_gym.envs.paper_search.semantic_scholar import client as client_module
from steppo_gym.envs.paper_search.semantic_scholar.client import OFFICIAL_URL, SemanticScholar
from steppo_gym.envs.paper_search.semantic_scholar.records import FIELDS, arxiv_month, best_date, paper_of, read_page
from steppo_gym.errors import DataError, InfrastructureError
from steppo_gym.storage import retrying_client as retrying_client

RECORD = {
    "paperId": "7cbc2a78",
    "externalIds": {"ArXiv": "2201.11990v3", "CorpusId": 246411325},
    "title": "Using DeepSpeed and\n Megatron",
    "abstract": None,
    "year": 2022,
    "publicationDate": None,
    "authors": [{"authorId": "1", "name": "Shaden Smith"}, {"authorId": None, "name": "M. Patwary"}],
    "citationCount": 600,
}
PAPER = Paper("2201.11990", "Using DeepSpeed and Megatron", "", "2022-01", ("Shaden Smith", "M. Patwary"), 600)
NOT_FOUND = {"error": "Paper with id 0 not found"}


@pytest.fixture(autouse=True)
def surroundings(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("S2_API_KEY", raising=False)
    monkeypatch.delenv("PAPER_SEARCH_BASE_URL", raising=False)
    monkeypatch.setattr(retrying_client, "FIRST_DELAY_SECONDS", 0.01)


@pytest.fixture
def connect(tmp_path):
    """Clients with a cache of their own, closed in the end."""
    clients = []

    def make(server, **options):
        url = server if isinstance(server, str) else server.url
        clients.append(SemanticScholar(url, **({"cache": tmp_path / "answers.sqlite", "timeout": 5.0} | options)))
        return clients[-1]

    yield make
    for client in clients:
        client.close()


def always(status, body, **headers):
    return lambda number, sent: (status, headers, body)


def record(number, **more):
    return {"paperId": f"p{number}", "title": f"Paper {number}", "publicationDate": f"20{10 + number:02}-01-01"} | more


def ids(papers):
    return [paper.paper_id for paper in papers]


def recorded(shared_data):
    return json.loads((shared_data / "papers" / "s2_api_responses.json").read_text(encoding="utf-8"))


@pytest.mark.data
def test_recorded_answers_are_read_without_loss(shared_data):
    lists = 0
    for answer in recorded(shared_data):
        body = answer["body"]
        if isinstance(body, dict) and ("data" in body or "total" in body):
            page = read_page(body)
            assert json.loads(json.dumps(page.message())) == body
            lists += 1
    assert lists == 10


@pytest.mark.data
@pytest.mark.parametrize(
    ("cassette", "ask", "key"),
    [
        ("test_search_paper", lambda client: client.search("turing", limit=5), None),
        ("test_empty_paginated_results", lambda client: client.search("n0 r3sult s3arch t3rm", limit=5), None),
        ("test_get_paper_citations", lambda client: client.citations("CorpusID:14514057", limit=8), "citingPaper"),
        ("test_get_paper_references", lambda client: client.references("10.2139/ssrn.2250500", limit=99), "citedPaper"),
    ],
)
def test_recorded_lists_become_papers(shared_data, connect, cassette, ask, key):
    answers = [answer for answer in recorded(shared_data) if answer["cassette"] == cassette]
    with Server(lambda number, sent: (200, {}, answers[number - 1]["body"])) as server:
        found = ask(connect(server.url + "/graph/v1"))
        assert len(server.paths) == len(answers)
        for path, answer in zip(server.paths, answers, strict=True):
            theirs, ours = urlsplit(answer["uri"]), urlsplit(path)
            assert unquote(ours.path) == unquote(theirs.path)
            for name in ("query", "offset"):
                assert parse_qs(ours.query).get(name) == parse_qs(theirs.query).get(name)
    entries = [entry[key] if key else entry for answer in answers for entry in answer["body"].get("data", ())]
    named = [entry for entry in entries if entry["paperId"]]
    assert [(paper.paper_id, paper.title) for paper in found] == [
        (entry["paperId"], " ".join(entry["title"].split())) for entry in named
    ][: len(found)]
    assert len(found) == (8 if cassette == "test_get_paper_citations" else len(named))


@pytest.mark.data
def test_recorded_single_answers_become_papers(shared_data, connect):
    by_uri = {answer["uri"].partition("?")[0]: answer for answer in recorded(shared_data) if "uri" in answer}
    base = "https://api.semanticscholar.org/graph/v1/paper/"

    def answer_as(uri):
        return Server(always(by_uri[uri]["status"], by_uri[uri]["body"]))

    with answer_as(base + "0") as server:
        assert connect(server).paper("0") is None
    # Authors alone make no paper.
    assert [paper_of(record) for record in by_uri[base + "batch"]["body"]] == [None, None, None]
    refused, paper = (
        next(answer for answer in recorded(shared_data) if answer["cassette"] == name)
        for name in ("test_bad_query_parameters", "test_get_paper")
    )
    with Server(lambda number, sent: (200, {}, paper["body"]) if number == 1 else (400, {}, refused["body"])) as server:
        client = connect(server)
        found = client.paper("10.1093/mind/lix.236.433")
        assert found == Paper("2d5673caa9e6af3a7b82a43f19ee920992db07ad", "Computing Machinery and Intelligence")
        assert client.paper("10.1093/mind/lix.236.433") == found
        with pytest.raises(InfrastructureError, match=r"HTTP 400: .*unsupported fields: \[unknown\]"):
            client.paper("other")


@pytest.mark.data
def test_recorded_links_have_all_their_papers(shared_data):
    for answer in recorded(shared_data)[-2:]:
        link = answer["body"]
        (key,) = {"citingPaper", "citedPaper"} & set(link)
        paper = paper_of(link[key])
        assert paper is not None
        assert paper.paper_id == link[key]["externalIds"].get("ArXiv", link[key]["paperId"])
        assert len(paper.authors) == len(link[key]["authors"])
        assert read_page({"offset": 0, "data": [link]}).message() == {"offset": 0, "data": [link]}


@pytest.mark.parametrize(
    "message",
    [
        {"total": 0, "offset": 0},
        {"total": 3, "offset": 0, "next": 2, "data": [{"paperId": "a"}, {"paperId": "b", "more": [1]}]},
        {"offset": 5, "data": [{"citedPaper": {"paperId": None, "title": "x"}, "isInfluential": False}]},
        {"offset": 0, "data": []},
        {"data": [{"paperId": "a", "matchScore": 109.55}]},
    ],
)
def test_pages_are_read_without_loss(message):
    assert read_page(message).message() == message


@pytest.mark.parametrize(
    "message",
    [
        None,
        [],
        {},
        {"total": 1, "offset": 0},
        {"data": {}},
        {"data": [1]},
        {"data": [], "next": "2"},
        {"total": -1},
        {"data": [], "offset": True},
        {"data": [], "next": 1.5},
    ],
)
def test_what_is_no_page_is_refused(message):
    with pytest.raises(ValueError, match="Expected"):
        read_page(message)


@pytest.mark.parametrize(
    ("message", "records"),
    [
        ({"data": None}, ()),
        ({"data": None, "citingPaperInfo": {"openAccessPdf": None}}, ()),
        ({"offset": 0, "next": None, "total": None, "data": None}, ()),
        ({"total": 0, "data": None}, ()),
        ({"data": [None, {"paperId": "a"}, None]}, ({"paperId": "a"},)),
    ],
)
def test_nulls_are_no_records(message, records):
    assert read_page(message).records == records


def test_a_withheld_list_is_empty_and_kept(connect):
    with Server(always(200, {"data": None, "citingPaperInfo": {"openAccessPdf": None}})) as server:
        client = connect(server)
        for _ in range(2):
            assert client.references("x", limit=5) == client.citations("x", limit=5) == []
        assert client.search("moon", limit=5) == []
        assert len(server.bodies) == 3


def test_nulls_within_a_list_are_passed_over(connect):
    nobody = {"paperId": None, "title": None, "externalIds": None, "authors": None, "citationCount": None, "year": None}
    links = [None, {"citedPaper": None}, {}, {"citedPaper": nobody}, {"citedPaper": RECORD}]
    with Server(always(200, {"offset": 0, "data": links})) as server:
        assert connect(server).references("x", limit=5) == [PAPER]


def test_a_record_becomes_a_paper():
    assert paper_of(RECORD) == PAPER
    complete = RECORD | {"externalIds": {"DOI": "10.1/x"}, "abstract": "Big.", "publicationDate": "2022-01-28"}
    assert paper_of(complete) == Paper("7cbc2a78", PAPER.title, "Big.", "2022-01-28", PAPER.authors, 600)


@pytest.mark.parametrize(
    ("day", "arxiv_id", "year", "expected"),
    [
        ("2022-01-28", "2203.00001", 2023, "2022-01-28"),
        (None, "2203.00001", 2023, "2022-03"),
        (None, "", 2023, "2023"),
        (None, "", "2023", "2023"),
        (None, "", None, ""),
        ("2022", "", 2023, "2023"),
        ("2022-13-01", "", 20233, ""),
        (20220101, "", True, ""),
        ("", "2213.00001", -202, ""),
    ],
)
def test_the_best_date_there_is_counts(day, arxiv_id, year, expected):
    assert best_date(day, arxiv_id, year) == expected


@pytest.mark.parametrize(
    ("paper_id", "month"),
    [
        ("1706.03762", "2017-06"),
        ("0704.0001", "2007-04"),
        ("cs/0112017", "2001-12"),
        ("math.GT/0309136", "2003-09"),
        ("hep-th/9108001", "1991-08"),
        ("1713.03762", ""),
        ("1706.037621", ""),
        ("1706123", ""),
        ("cs/01120171", ""),
        ("P1706.03762", ""),
        ("", ""),
    ],
)
def test_an_arxiv_id_says_its_month(paper_id, month):
    assert arxiv_month(paper_id) == month


@pytest.mark.parametrize(
    "unusable",
    [
        None,
        [],
        "x",
        {},
        {"paperId": None, "title": "A"},
        {"paperId": "a", "title": None},
        {"paperId": "a"},
        {"paperId": "", "title": "A"},
        {"paperId": 7, "title": "A"},
        {"paperId": "a", "title": " \n"},
    ],
)
def test_a_record_without_id_or_title_is_no_paper(unusable):
    assert paper_of(unusable) is None


def test_odd_values_in_a_record_do_no_harm():
    odd = {"paperId": "a", "title": "A", "externalIds": None, "abstract": 1, "authors": "x", "citationCount": "9"}
    assert paper_of(odd) == Paper("a", "A")
    assert paper_of(odd | {"externalIds": {"ArXiv": 7}, "authors": [None, {"name": None}, {}]}) == Paper("a", "A")
    assert paper_of({"paperId": None, "title": "A", "externalIds": {"ArXiv": "cs/0112017v1"}}) == Paper(
        "cs/0112017", "A", "", "2001-12"
    )


def test_requests_are_those_of_the_api(connect):
    with Server(always(200, {"total": 1, "offset": 0, "data": [RECORD]})) as server:
        client = connect(server.url + "/graph/v1/", api_key="secret")
        assert client.search("chain-of\n thought&fields=x", limit=10, until="2023-05-01") == [PAPER]
        (path,) = server.paths
        assert urlsplit(path).path == "/graph/v1/paper/search"
        assert parse_qs(urlsplit(path).query) == {
            "query": ["chain of thought&fields=x"],
            "publicationDateOrYear": [":2023-05-01"],
            "fields": [",".join(FIELDS)],
            "offset": ["0"],
            "limit": ["10"],
        }
        assert server.headers[0]["x-api-key"] == "secret"
        for ask, expected in [
            (lambda: client.citations("2201.11990v2", limit=30), "/graph/v1/paper/ARXIV:2201.11990/citations"),
            (lambda: client.references("cs/0112017", limit=30), "/graph/v1/paper/ARXIV:cs/0112017/references"),
            (lambda: client.paper("a/../b?c=d"), "/graph/v1/paper/a%2F..%2Fb%3Fc%3Dd"),
            (lambda: client.paper("CorpusID:7"), "/graph/v1/paper/CorpusID:7"),
        ]:
            ask()
            assert urlsplit(server.paths[-1]).path == expected


def test_settings_come_from_the_environment(connect, monkeypatch, tmp_path):
    with Server(always(200, RECORD)) as server:
        monkeypatch.setenv("PAPER_SEARCH_BASE_URL", server.url + "/")
        monkeypatch.setenv("S2_API_KEY", "from the environment")
        client = connect("")
        assert client.url == server.url
        assert client.paper("x") == PAPER
        assert server.headers[0]["x-api-key"] == "from the environment"
        monkeypatch.delenv("S2_API_KEY")
        assert connect(server, cache=tmp_path / "other.sqlite").paper("x") == PAPER
        assert "x-api-key" not in server.headers[1]
    monkeypatch.delenv("PAPER_SEARCH_BASE_URL")
    official = connect("")
    assert official.url == OFFICIAL_URL


def test_the_key_is_not_kept(connect, tmp_path):
    with Server(always(200, RECORD)) as server:
        connect(server, api_key="very-secret").paper("x")
    assert b"very-secret" not in (tmp_path / "answers.sqlite").read_bytes()


def pages_of(records, **keys):
    """A server of a list, whatever is asked of it."""

    def answer(number, sent):
        query = parse_qs(urlsplit(server.paths[-1]).query)
        offset, limit = int(query["offset"][0]), int(query["limit"][0])
        asked.append((offset, limit))
        end = offset + limit
        more = {"next": end} if end < len(records) else {}
        return 200, {}, {"offset": offset, **more, "data": records[offset:end], **keys}

    asked: list = []
    server = Server(answer)
    return server, asked


def test_pages_are_read_until_enough_papers_are_in_time(connect):
    records = [record(number) for number in reversed(range(40))]
    server, asked = pages_of([{"citingPaper": entry} for entry in records])
    with server:
        client = connect(server)
        assert ids(client.citations("x", limit=3)) == ["p39", "p38", "p37"]
        assert asked == [(0, 3)]
        assert ids(client.citations("x", limit=3, until="2020-06-01")) == ["p10", "p9", "p8"]
        # The first page is known; each is twice as long as the one before.
        assert asked == [(0, 3), (3, 6), (9, 12), (21, 24)]
        assert len(client.citations("x", limit=99)) == 40


def test_null_ids_repeated_papers_and_what_has_no_title_are_left_out(connect):
    papers = [record(1), record(2, paperId=None), record(3, title=None), record(1), record(4)]
    papers += [record(5, externalIds={"ArXiv": "2001.00001"}), record(6, externalIds={"ArXiv": "2001.00001v2"})]
    server, asked = pages_of([{"citedPaper": paper} for paper in papers] + [{"isInfluential": True}])
    with server:
        assert ids(connect(server).references("x", limit=3)) == ["p1", "p4", "2001.00001"]
        assert asked == [(0, 3), (3, 6)]


def test_no_more_is_asked_than_the_server_gives(connect):
    server, asked = pages_of([record(number % 80) for number in range(5000)], total=5000)
    with server:
        assert connect(server).search("moon", limit=9, until="1999-01-01") == []
    assert asked[:4] == [(0, 9), (9, 18), (27, 36), (63, 72)]
    assert max(limit for _, limit in asked) == 100
    assert asked[-1][0] + asked[-1][1] == 1000


def test_a_server_that_goes_in_circles_is_left(connect):
    circle = {"total": 9, "offset": 0, "next": 0, "data": [record(1)]}
    with Server(always(200, circle)) as server:
        assert ids(connect(server).search("moon", limit=5)) == ["p1"]
        assert len(server.paths) == 1


def test_no_hit_has_no_data(connect):
    with Server(always(200, {"total": 0, "offset": 0})) as server:
        assert connect(server).search("n0 r3sult", limit=5) == []


def test_an_unknown_paper_is_none_and_asked_for_once(connect):
    with Server(always(404, NOT_FOUND)) as server:
        client = connect(server)
        for _ in range(2):
            assert client.paper("0") is None
            assert client.citations("0", limit=3) == client.references("0", limit=3) == []
        assert len(server.paths) == 3


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (404, "<html>Not here</html>"),
        (404, {"detail": "Not Found"}),
        (200, "<html>"),
        (200, "[1, 2"),
        (200, "[]"),
        (200, {"error": "no"}),
        (200, "[" * 100000),
        (500, {"message": "Internal error"}),
        (503, ""),
        (408, ""),
    ],
)
def test_bad_answers_are_asked_for_again_and_never_kept(connect, status, body):
    with Server(lambda number, sent: (status, {}, body) if number <= 2 else (200, {}, RECORD)) as server:
        client = connect(server, max_retries=1)
        with pytest.raises(InfrastructureError, match="gave no response in 2 attempts") as error:
            client.paper("x")
        assert error.value.boundary == "search"
        assert client.paper("x") == PAPER
        assert len(server.paths) == 3


@pytest.mark.parametrize("body", [{"total": 1, "offset": 0}, {"data": [7]}, {"data": [], "next": "soon"}])
def test_a_list_that_is_none_is_asked_for_again(connect, body):
    page = {"total": 1, "offset": 0, "data": [RECORD]}
    with Server(lambda number, sent: (200, {}, body if number == 1 else page)) as server:
        assert connect(server).search("moon", limit=1) == [PAPER]


@pytest.mark.parametrize(("status", "asked"), [(400, 1), (401, 1), (403, 1), (301, 1), (404, 1)])
def test_a_refused_search_is_an_error_at_once(connect, status, asked):
    with Server(always(status, {"error": "Unrecognized or unsupported fields: [unknown]"})) as server:
        client = connect(server)
        for _ in range(2):
            with pytest.raises(InfrastructureError, match=f"refused the request with HTTP {status}: .*unsupported"):
                client.search("moon", limit=3)
        assert len(server.paths) == 2 * asked


def test_retry_after_is_heeded(connect):
    times = []

    def answer(number, sent):
        times.append(time.monotonic())
        return (429, {"Retry-After": "0.4"}, {"message": "Too Many Requests"}) if number < 3 else (200, {}, RECORD)

    with Server(answer) as server:
        assert connect(server).paper("x") == PAPER
    assert [later - earlier >= 0.4 for earlier, later in itertools.pairwise(times)] == [True, True]


def test_a_server_that_asks_for_more_than_a_step_can_wait_is_given_up(connect):
    busy = always(429, {"message": "Too Many Requests"}, **{"Retry-After": "60"})
    with Server(busy) as server, pytest.raises(InfrastructureError, match="asks to wait 60 s"):
        connect(server).paper("x")


def test_a_time_out_is_tried_again(connect):
    released = threading.Event()

    def answer(number, sent):
        if number == 1:
            released.wait(10)
        return 200, {}, RECORD

    with Server(answer) as server:
        assert connect(server, timeout=0.3).paper("x") == PAPER
        released.set()


def test_a_server_that_is_not_there_is_an_infrastructure_error(connect):
    with Server(always(200, RECORD)) as server:
        pass
    with pytest.raises(InfrastructureError, match=r"search: .*gave no response in 2 attempts.*ConnectError"):
        connect(server, max_retries=1).paper("x")


def test_requests_keep_their_distance(connect):
    times = []

    def answer(number, sent):
        times.append(time.monotonic())
        return 200, {}, RECORD

    with Server(answer) as server:
        client = connect(server, min_interval=0.15)
        threads = [threading.Thread(target=client.paper, args=(f"p{number}",)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        client.paper("p0")
    times.sort()
    assert len(times) == 4
    # Less a little for the way to the server.
    assert min(later - earlier for earlier, later in itertools.pairwise(times)) > 0.1


def test_so_many_requests_are_under_way_at_once(connect):
    def answer(number, sent):
        time.sleep(0.1)
        return 200, {}, RECORD

    with Server(answer) as server:
        client = connect(server, max_concurrency=2)
        threads = [threading.Thread(target=client.paper, args=(f"p{number}",)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert server.most_active == 2


def test_kept_answers_come_when_the_server_is_gone(connect, tmp_path):
    papers = make_papers(30)
    corpus = make_corpus(tmp_path / "papers", papers, make_citations(papers))
    asked = [papers[0].paper_id, papers[1].paper_id, "unknown"]

    def ask(client):
        return (
            client.search("moon graph", limit=5, until="2020-06-01"),
            [client.paper(one) for one in asked],
            [client.citations(one, limit=2) + client.references(one, limit=2) for one in asked],
        )

    with serving_papers(corpus) as server:
        first = ask(connect(server))
    assert ask(connect(server, max_retries=0)) == first
    with pytest.raises(InfrastructureError):
        connect(server, max_retries=0).search("something else", limit=5)
    # What one server said is not what another one says.
    with pytest.raises(InfrastructureError):
        connect("http://127.0.0.1:9", max_retries=0).paper(asked[0])


def test_of_two_answers_at_once_the_first_is_kept_for_both(connect, tmp_path):
    barrier = threading.Barrier(2)

    def answer(number, sent):
        barrier.wait(10)
        return 200, {}, RECORD | {"title": f"Answer {number}"}

    titles = []
    with Server(answer) as server:
        client = connect(server)
        threads = [threading.Thread(target=lambda: titles.append(client.paper("x").title)) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(titles) == 2 and len(set(titles)) == 1


def test_what_is_served_at_an_address_may_be_another_corpus_tomorrow(monkeypatch, tmp_path):
    """Only the official server's answers are kept where no file is named."""
    monkeypatch.setenv("STEPPO_GYM_CACHE", str(tmp_path))
    with Server(lambda number, sent: (200, {}, RECORD | {"title": f"Answer {number}"})) as server:

        def titles():
            client = SemanticScholar(server.url, min_interval=0)
            found = [client.paper("x").title for _ in range(2)]
            client.close()
            return found

        assert titles() == ["Answer 1", "Answer 2"] and titles() == ["Answer 3", "Answer 4"]
        assert list(tmp_path.iterdir()) == []
        monkeypatch.setattr(client_module, "OFFICIAL_URL", server.url)
        assert titles() == ["Answer 5"] * 2 == titles()


def test_a_cache_that_is_none_is_explained(connect, tmp_path):
    (tmp_path / "noise.sqlite").write_bytes(b"noise" * 1000)
    with pytest.raises(DataError, match=r"noise.sqlite cannot be used .*Delete it"):
        connect("http://127.0.0.1:9", cache=tmp_path / "noise.sqlite").paper("x")
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be used"):
        connect("http://127.0.0.1:9", cache=tmp_path / "file" / "answers.sqlite").paper("x")


@pytest.mark.parametrize(
    ("options", "message"),
    [({"timeout": 0}, "timeout"), ({"max_retries": -1}, "max_retries"), ({"max_concurrency": 0}, "max_concurrency")],
)
def test_options_outside_their_range(connect, options, message):
    with pytest.raises(ValueError, match=message):
        connect("http://127.0.0.1:9", **options)
    with pytest.raises(ValueError, match="must start with http"):
        connect("ftp://somewhere")


def test_a_long_query_is_cut(connect):
    with Server(always(200, {"total": 0, "offset": 0})) as server:
        connect(server).search("moon " * 10**5, limit=3)
        assert len(server.paths[0]) < 2000
