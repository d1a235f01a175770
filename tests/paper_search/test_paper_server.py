"""A corpus behind the shape of the Semantic Scholar Graph API, and the commands that build and serve it."""

from __future__ import annotations

import http.client
import json
import signal
import subprocess
import sys
from urllib.parse import quote

import httpx
import pytest
from paper_corpora import make_corpus, serving_papers

from steppo_gym.cli import main
from steppo_gym.envs.paper_search.corpus.corpus import open_corpus
from steppo_gym.envs.paper_search.papers import Paper
from steppo_gym.envs.paper_search.semantic_scholar.client import SemanticScholar
from steppo_gym.envs.paper_search.semantic_scholar.records import FIELDS
from steppo_gym.envs.paper_search.serving.paper_server import PaperServer

PAPERS = [
    Paper("1706.03762", "Attention moon", "We propose moon.", "2017-06-12", ("A. Vaswani", "N. Shazeer"), 9),
    Paper("cs/0112017", "Old moon", "Moon of old.", "2001-12"),
    Paper("P/1 ?#", "Odd moon", "", "2019"),
    Paper("undated", "Undated moon"),
    *(Paper(f"n{number:03}", f"Newer {number}", "dust", f"2020-01-{1 + number % 28:02}") for number in range(130)),
]
CITATIONS = [(f"n{number:03}", "1706.03762") for number in range(130)] + [("1706.03762", "cs/0112017")]


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    corpus = make_corpus(tmp_path_factory.mktemp("corpus") / "papers", PAPERS, CITATIONS)
    with serving_papers(corpus) as running:
        yield running


def get(server, path):
    answer = httpx.get(server.url + path)
    return answer.status_code, answer.json()


def post(server, body, query=""):
    content = body if isinstance(body, bytes) else json.dumps(body)
    answer = httpx.post(f"{server.url}/paper/batch{query}", content=content)
    return answer.status_code, answer.json()


def refused(server, path, status, message):
    found = get(server, path)
    assert found[0] == status and message in found[1]["error"], found
    assert list(found[1]) == ["error"]


def test_a_paper_has_the_fields_that_are_asked_for(server):
    fields = f"{','.join(FIELDS)},referenceCount,venue,authors.name,corpusId"
    assert get(server, f"/paper/ARXIV:1706.03762?fields={fields}") == (
        200,
        {
            "paperId": "1706.03762",
            "externalIds": {"ArXiv": "1706.03762"},
            "title": "Attention moon",
            "abstract": "We propose moon.",
            "year": 2017,
            "publicationDate": "2017-06-12",
            "authors": [{"authorId": None, "name": "A. Vaswani"}, {"authorId": None, "name": "N. Shazeer"}],
            "citationCount": 130,
            "referenceCount": 1,
            "venue": None,
            "corpusId": None,
        },
    )
    assert get(server, "/paper/1706.03762") == (200, {"paperId": "1706.03762", "title": "Attention moon"})
    assert get(server, "/paper/undated?fields=year,publicationDate,abstract,externalIds") == (
        200,
        {"paperId": "undated", "year": None, "publicationDate": None, "abstract": None, "externalIds": {}},
    )
    assert get(server, "/paper/cs/0112017?fields=year,publicationDate")[1] == {
        "paperId": "cs/0112017",
        "year": 2001,
        "publicationDate": None,
    }


@pytest.mark.parametrize("base", ["", "/graph/v1"])
@pytest.mark.parametrize("name", ["arXiv:1706.03762v5", "1706.03762", "ARXIV:1706.03762"])
def test_ids_and_bases(server, base, name):
    assert get(server, f"{base}/paper/{name}?fields=title")[1]["paperId"] == "1706.03762"
    assert get(server, f"{base}/paper/{quote('P/1 ?#', safe='')}?fields=year")[1] == {"paperId": "P/1 ?#", "year": 2019}
    for old in ("ARXIV:cs/0112017", "cs%2F0112017"):
        (link,) = get(server, f"{base}/paper/{old}/citations?fields=title")[1]["data"]
        assert link == {"citingPaper": {"paperId": "1706.03762", "title": "Attention moon"}}


def test_searches_come_in_pages(server):
    first = get(server, "/paper/search?query=moon&limit=3")
    assert first[0] == 200
    # Counted up to the first hit after the page.
    assert {name: first[1][name] for name in ("total", "offset", "next")} == {"total": 4, "offset": 0, "next": 3}
    second = get(server, "/paper/search?query=moon&offset=3&limit=3&fields=paperId")[1]
    assert (second["total"], second["offset"], "next" in second, len(second["data"])) == (4, 3, False, 1)
    everything = get(server, "/paper/search?query=moon&fields=title")[1]["data"]
    assert [paper["paperId"] for paper in first[1]["data"] + second["data"]] == [
        paper["paperId"] for paper in everything
    ]
    assert len(get(server, "/paper/search?query=dust")[1]["data"]) == 100
    in_time = get(server, "/paper/search?query=moon&publicationDateOrYear=:2018-01-01")[1]["data"]
    assert {paper["paperId"] for paper in in_time} == {"1706.03762", "cs/0112017"}
    past_the_end = get(server, "/paper/search?query=moon&offset=7")
    assert past_the_end == (200, {"total": 4, "offset": 7, "data": []})


def test_no_hit_has_no_data(server):
    assert get(server, "/paper/search?query=n0+r3sult&fields=title&offset=0&limit=100") == (
        200,
        {"total": 0, "offset": 0},
    )


def test_citations_and_references_come_in_pages(server):
    first = get(server, "/paper/1706.03762/citations")[1]
    assert (first["offset"], first["next"], len(first["data"])) == (0, 100, 100)
    second = get(server, "/paper/1706.03762/citations?offset=100&fields=publicationDate")[1]
    assert (second["offset"], "next" in second, len(second["data"])) == (100, False, 30)
    # Newest first.
    assert first["data"][0]["citingPaper"]["paperId"] == "n027"
    assert second["data"][-1]["citingPaper"] == {"paperId": "n112", "publicationDate": "2020-01-01"}
    link = get(server, "/paper/1706.03762/references?fields=isInfluential,contexts,title")[1]["data"]
    assert link == [
        {"isInfluential": False, "contexts": [], "citedPaper": {"paperId": "cs/0112017", "title": "Old moon"}}
    ]
    assert get(server, "/paper/undated/references") == (200, {"offset": 0, "data": []})


def test_a_batch_has_null_for_unknown_papers(server):
    ids = ["arXiv:1706.03762v1", "gone", "P/1 ?#", "1706.03762"]
    assert post(server, {"ids": ids}, "?fields=year") == (
        200,
        [
            {"paperId": "1706.03762", "year": 2017},
            None,
            {"paperId": "P/1 ?#", "year": 2019},
            {"paperId": "1706.03762", "year": 2017},
        ],
    )


@pytest.mark.parametrize(
    ("path", "status", "message"),
    [
        ("/paper/0?fields=title", 404, "Paper with id 0 not found"),
        ("/paper/0/citations", 404, "Paper with id 0 not found"),
        ("/paper/a%2F..%2Fb/references", 404, "Paper with id a/../b not found"),
        ("/paper/%ff", 404, "not found"),
        ("/paper/1706.03762?fields=unknown", 400, "Unrecognized or unsupported fields: [unknown]"),
        ("/paper/1706.03762?fields=", 400, "Unrecognized or unsupported fields: []"),
        ("/paper/1706.03762?fields=title,isInfluential", 400, "Unrecognized or unsupported fields: [isInfluential]"),
        ("/paper/search", 400, "Expected a query."),
        ("/paper/search?query=+", 400, "Expected a query."),
        ("/paper/search?query=moon&limit=101", 400, "limit from 1 to 100"),
        ("/paper/search?query=moon&limit=0", 400, "limit from 1 to 100"),
        ("/paper/search?query=moon&limit=-1", 400, "Expected offset and limit as numbers, found '0' and '-1'"),
        ("/paper/search?query=moon&limit=ten", 400, "Expected offset and limit as numbers"),
        ("/paper/search?query=moon&offset=901", 400, "offset + limit at most 1000"),
        (f"/paper/search?query=moon&offset={'9' * 5000}", 400, "Expected offset and limit as numbers"),
        ("/paper/search?query=moon&year=1936", 400, "found year"),
        ("/paper/search?query=moon&publicationDateOrYear=2016:2018", 400, "Expected publicationDateOrYear as"),
        ("/paper/1706.03762/citations?limit=1001", 400, "limit from 1 to 1000"),
        ("/paper/1706.03762/citations?offset=9999", 400, "offset + limit at most 9999"),
        ("/paper/search?query=moon&" + "&".join(f"a{n}=1" for n in range(99)), 400, "at most 20 parameters"),
        ("/", 404, "Expected /paper/search"),
        ("/paper", 404, "Expected /paper/search"),
        ("/author/1", 404, "Expected /paper/search"),
        ("/paper/batch", 405, "Expected POST."),
    ],
)
def test_mistakes_are_explained(server, path, status, message):
    refused(server, path, status, message)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "Expected a JSON object with ids"),
        (b"[" * 100_000, "Expected a JSON object with ids"),
        (b"\xff", "Expected a JSON object with ids"),
        ([], "Expected a JSON object with ids"),
        ({"ids": []}, "Expected a JSON object with ids"),
        ({"ids": [7]}, "Expected a JSON object with ids"),
        ({"ids": "gone"}, "Expected a JSON object with ids"),
        ({"ids": ["gone"] * 501}, "Expected at most 500 ids, found 501."),
    ],
)
def test_mistakes_in_a_batch_are_explained(server, body, message):
    status, answer = post(server, body)
    assert status == 400 and message in answer["error"]
    assert post(server, {"ids": ["gone"] * 500})[0] == 200


def test_other_methods_and_long_bodies_are_refused(server):
    assert httpx.post(server.url + "/paper/search", json={}).status_code == 405
    assert httpx.put(server.url + "/paper/search").status_code == 501
    connection = http.client.HTTPConnection(*server.server_address[:2])
    connection.putrequest("POST", "/paper/batch")
    connection.putheader("Content-Length", str(2**30))
    connection.endheaders()
    assert connection.getresponse().status == 413
    connection.close()


def test_a_fault_of_the_corpus_does_not_end_the_server(tmp_path, caplog):
    corpus = make_corpus(tmp_path / "papers", PAPERS)
    with serving_papers(corpus) as broken:
        (corpus.folder / "papers.sqlite").write_bytes(b"noise" * 9)
        corpus._connections.close()
        status, answer = get(broken, "/paper/1706.03762")
        assert status == 500 and "DataError" in answer["error"]
        assert get(broken, "/")[0] == 404
    assert "A request failed." in caplog.text


def test_it_listens_on_the_loopback_interface(server):
    assert server.server_address[0] == "127.0.0.1"
    with pytest.raises(ValueError, match="port must be from 0 to 65535, got 70000"):
        PaperServer(server.corpus, port=70_000)


@pytest.fixture
def papers_file(tmp_path):
    path = tmp_path / "papers.jsonl"
    cited = {citing: [other for one, other in CITATIONS if one == citing] for citing, _ in CITATIONS}
    rows = (
        {"paper_id": paper.paper_id, "title": paper.title, "abstract": paper.abstract, "date": paper.date}
        | {"references": cited.get(paper.paper_id, []), "authors": list(paper.authors), "num_citations": 0}
        for paper in PAPERS
    )
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_the_command_serves_until_a_signal(papers_file, tmp_path):
    code = "import sys; from steppo_gym.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "serve-papers", str(papers_file), "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        line = process.stdout.readline()
        url = line.split(" on ")[1].split(",")[0]
        assert line == f"Serving 134 papers on {url}, citations: real; Ctrl-C ends it.\n"
        client = SemanticScholar(url, cache=tmp_path / "answers.sqlite")
        assert client.search("attention", limit=1) == open_corpus(papers_file).search("attention", limit=1)
        client.close()
        process.send_signal(signal.SIGTERM)
        assert process.communicate(timeout=20) == ("Stopped.\n", "")
        assert process.returncode == 0
    finally:
        process.kill()
        process.communicate()


def test_the_command_builds_a_corpus(papers_file, capsys):
    assert main(["index-papers", str(papers_file), "--generated", "--quiet"]) == 0
    folder, summary, _ = capsys.readouterr().out.split("\n")
    assert summary == (
        "134 papers, 131 citations (generated), 0 more to or from papers that are not in it. "
        "From papers.jsonl: papers with references that were made up."
    )
    assert open_corpus(folder).info.edges == "generated"
    assert main(["index-papers", str(papers_file), "--quiet"]) == 0
    other, summary, _ = capsys.readouterr().out.split("\n")
    assert other != folder and "131 citations (real)" in summary


def test_the_commands_explain_what_is_wrong(tmp_path, capsys):
    (tmp_path / "answer.json").write_text('{"paperId": "1", "title": "Moon"}')
    assert main(["index-papers", str(tmp_path / "answer.json"), "--generated"]) == 1
    assert "generated is about references in our own format, which none of these" in capsys.readouterr().err
    assert main(["index-papers", str(tmp_path / "none.jsonl")]) == 1
    assert "found no such file" in capsys.readouterr().err
    assert main(["serve-papers", str(tmp_path / "none.jsonl")]) == 1
    assert "found no such file" in capsys.readouterr().err
