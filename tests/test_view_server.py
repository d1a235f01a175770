"""The viewer's server and its page in one file, without a browser."""

from __future__ import annotations

import base64
import http.client
import json
import re
import shutil
import socket
import threading
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlencode

import pytest
from view_runs import HOSTILE, played, write_run

from steppo_gym.cli import main
from steppo_gym.view.export import export
from steppo_gym.view.page import page_with, script
from steppo_gym.view.run_folder import open_runs
from steppo_gym.view.server import ViewServer

EPISODES = [played(f"task-{n}", [(f"see {n}", "go"), ("done", "stop")], success=n % 2 == 0) for n in range(6)]


@contextmanager
def serving(*folders: Path):
    with ViewServer(open_runs(folders)) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def run(tmp_path):
    return write_run(tmp_path / "run", {f"iteration-{n:04d}": EPISODES for n in (1, 2)})


def ask(server: ViewServer, path: str, *, method: str = "GET", host: str | None = None):
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=20)
    connection.request(method, path, headers={"Host": host} if host else {})
    response = connection.getresponse()
    body = response.read().decode()
    connection.close()
    return response.status, response.headers, body


def answer(server: ViewServer, question: str, **query: object):
    status, headers, body = ask(server, f"/api/{question}?{urlencode(query)}")
    assert headers["Content-Type"] == "application/json"
    return status, json.loads(body)


ODD_NUMBERS = ["1" + "0" * 30, "-1" + "0" * 30, "9" * 5000, "1e999", "nan", "inf", "-0", "0x1", "1_0", "\u0663", "1.5"]
NUMBERS = {
    "episodes": ["offset", "limit", "min_steps", "max_steps", "min_reward", "max_reward"],
    "steps": ["number", "offset", "limit"],
    "whole": ["number", "step"],
    "find": ["number", "after"],
}


def test_no_number_in_an_address_is_a_fault_of_the_server(run):
    with serving(run) as server:
        place = {"run": "run", "file": "iteration-0001.jsonl"}
        for question, names in NUMBERS.items():
            for name in names:
                for number in ODD_NUMBERS:
                    status, found = answer(server, question, **place, **{name: number})
                    assert status in (200, 400), (question, name, number, found)
        for number in ("1" + "0" * 30, "-1" + "0" * 30):
            status, found = answer(server, "episodes", **place, min_steps=number)
            assert (status, found) == (400, {"error": f"min_steps cannot be '{number}'."})
        assert answer(server, "episodes", **place, max_reward="nan") == (400, {"error": "max_reward cannot be 'nan'."})


def test_the_page_and_its_parts_are_served_with_a_policy(run):
    with serving(run) as server:
        for path, kind in (("/", "text/html"), ("/view.js", "text/javascript"), ("/view.css", "text/css")):
            status, headers, body = ask(server, path)
            assert (status, headers["Content-Type"]) == (200, f"{kind}; charset=utf-8")
            assert "script-src 'self'" in headers["Content-Security-Policy"]
            assert headers["X-Content-Type-Options"] == "nosniff"
            # Nothing is fetched from elsewhere; the address is the name of a language.
            assert "http" not in body.replace("http://www.w3.org/2000/svg", "")


def test_questions_are_answered(run):
    with serving(run) as server:
        where = {"run": "run", "file": "iteration-0002.jsonl"}
        status, runs = answer(server, "runs")
        assert status == 200 and [one["name"] for one in runs["runs"]] == ["run"]
        assert runs["runs"][0]["files"] == ["iteration-0001.jsonl", "iteration-0002.jsonl"]
        _, listing = answer(server, "episodes", **where, success="no", limit=50)
        assert [row["number"] for row in listing["episodes"]] == [1, 3, 5]
        _, episode = answer(server, "episode", **where, number=3)
        assert episode["task"] == "task-3"
        _, steps = answer(server, "steps", **where, number=3, offset=1, limit=5)
        assert [step["action"] for step in steps] == ["stop"]
        assert answer(server, "find", **where, number=3, text="DONE", after=0) == (200, {"step": 1})
        assert answer(server, "whole", **where, number=3, step=0)[1]["observation"] == "see 3"
        assert len(answer(server, "mates", **where, number=3, step=0)[1]) == 1


def test_a_file_that_changes_is_read_again(run):
    path = run / "episodes" / "iteration-0001.jsonl"
    with serving(run) as server:
        where = {"run": "run", "file": path.name, "limit": 5}
        assert answer(server, "episodes", **where)[1]["all"] == 6
        with path.open("a") as file:
            file.write(EPISODES[0].to_json() + "\n")
        assert answer(server, "episodes", **where)[1]["all"] == 7


def test_an_index_that_is_deleted_is_built_again(run, tmp_path, monkeypatch):
    monkeypatch.setenv("STEPPO_GYM_CACHE", str(tmp_path / "cache"))
    with serving(run) as server:
        where = {"run": "run", "file": "iteration-0001.jsonl", "limit": 5}
        before = answer(server, "episodes", **where)
        shutil.rmtree(tmp_path / "cache")
        assert answer(server, "episodes", **where) == before


def test_a_damaged_index_is_named(run, tmp_path, monkeypatch, capsys):
    """It may have its name and not its content where a machine lost its power."""
    monkeypatch.setenv("STEPPO_GYM_CACHE", str(tmp_path / "cache"))
    where = {"run": "run", "file": "iteration-0002.jsonl", "limit": 5}
    with serving(run) as server:
        assert answer(server, "episodes", **where)[0] == 200
    (index,) = (tmp_path / "cache" / "view").glob("*.sqlite")
    said = f"The index {index} is damaged"
    for content in (b"", b"x" * 10_000, index.read_bytes()[:5_000]):
        index.write_bytes(content)
        with serving(run) as server:
            status, found = answer(server, "episodes", **where)
            assert status == 400 and said in found["error"]
        assert main(["view", str(run), "--html", str(tmp_path / "page.html")]) == 1
        assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("question", "query", "status", "said"),
    [
        ("runs/../x", {}, 404, "no question"),
        ("episodes", {"run": "other", "file": "x"}, 400, "no run 'other'"),
        ("episodes", {"run": "run", "file": "../config.json"}, 400, "no file of episodes"),
        (
            "episodes",
            {"run": "run", "file": "iteration-0001.jsonl", "limit": "-1"},
            400,
            "limit must be a whole number",
        ),
        ("episodes", {"run": "run", "file": "iteration-0001.jsonl", "success": "maybe"}, 400, "success cannot be"),
        ("episode", {"run": "run", "file": "iteration-0001.jsonl", "number": 99}, 400, "no episode 99"),
        ("whole", {"run": "run", "file": "iteration-0001.jsonl", "number": 1, "step": 99}, 400, "no step 99"),
    ],
)
def test_what_cannot_be_answered_is_said(run, question, query, status, said):
    with serving(run) as server:
        found, body = answer(server, question, **query)
        assert found == status and said in body["error"]


def test_a_page_from_elsewhere_learns_nothing(run):
    with serving(run) as server:
        for host in ("evil.example", f"evil.example:{server.server_port}", "127.0.0.1.evil.example"):
            assert ask(server, "/api/runs", host=host)[0] == 403
        for host in ("localhost", f"localhost:{server.server_port}", f"127.0.0.1:{server.server_port}"):
            assert ask(server, "/api/runs", host=host)[0] == 200
        assert ask(server, "/api/runs", method="POST")[0] in (405, 411)
        assert ask(server, "/etc/passwd")[0] == 404
        assert server.server_address[0] == "127.0.0.1"


@pytest.mark.parametrize(
    ("path", "header", "said"),
    [
        ("http://[", "X: y", "Expected a path"),
        ("/", "Content-Length: 5", "Expected no body"),
        ("/view.js", "Transfer-Encoding: chunked", "Expected no body"),
        ("/", "Host: evil.example", "Expected the address of this machine"),
    ],
)
def test_a_request_for_a_page_is_looked_at_like_any_other(run, path, header, said):
    host = "" if header.startswith("Host") else "Host: localhost\r\n"
    with serving(run) as server, socket.create_connection(("127.0.0.1", server.server_port), 20) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\n{host}{header}\r\n\r\n".encode())
        with http.client.HTTPResponse(connection) as response:
            response.begin()
            assert 400 <= response.status < 500 and said in json.loads(response.read())["error"]


def test_the_command_writes_one_page(run, tmp_path, capsys):
    assert main(["view", str(run), "--html", str(tmp_path / "new" / "page.html"), "--episodes", "5"]) == 0
    assert "page.html: 5 of 12 episodes, 0.1 MB" in capsys.readouterr().out
    assert main(["view", str(tmp_path), "--html", str(tmp_path / "other.html")]) == 1
    assert "steppo-gym: Expected the folder of a run" in capsys.readouterr().err
    assert not (tmp_path / "other.html").exists()


def test_the_newest_episodes_with_tokens_go_into_a_page_first(run):
    page, included, total = export(open_runs([run]), most_episodes=3)
    assert (included, total) == (3, 12)
    data = embedded(page)
    assert {file: sorted(found) for file, found in data["episodes"]["run"].items()} == {
        "iteration-0001.jsonl": ["0"],
        "iteration-0002.jsonl": ["0", "1"],
    }
    assert export(open_runs([run]), most_episodes=3)[0] == page
    # Nor does it say when it was packed (RFC 1952, section 2.3.1): another day it is the same page.
    for packed in data["episodes"]["run"]["iteration-0002.jsonl"].values():
        assert base64.b64decode(packed)[4:8] == bytes(4)


def test_two_hundred_episodes_of_fifty_steps_are_below_five_megabytes(tmp_path):
    rooms = ["kitchen", "cellar", "attic", "garden", "hall"]
    turns = lambda n: [  # noqa: E731
        (f"You are in the {rooms[(n + k) % 5]}, you see {k * n % 97} lamps and {n + k} chairs. " * 4, f"take lamp {k}")
        for k in range(50)
    ]
    # Each is packed on its own, so those that come again take as many bytes as others would.
    distinct = [played(f"t-{n}", turns(n)) for n in range(20)]
    folder = write_run(tmp_path / "run", {"iteration-0001": distinct * 11}, sampled=200)
    page, included, _ = export(open_runs([folder]))
    assert included == 200 and len(page.encode()) < 5_000_000
    page, included, _ = export(open_runs([folder]), most_bytes=600_000)
    assert 10 < included < 200 and len(page.encode()) <= 600_000


def test_hostile_text_cannot_leave_the_data_of_a_page(tmp_path):
    folder = write_run(tmp_path / "run", {"iteration-0001": [played(HOSTILE, [(HOSTILE, HOSTILE)])]}, algorithm=HOSTILE)
    page, _, _ = export(open_runs([folder]))
    assert embedded(page)["overview"]["runs"][0]["settings"]["algorithm"] == HOSTILE
    assert page.count("<script") == 2 and "onerror" in page and "<img" not in page


def test_only_the_script_of_a_page_may_run():
    page = page_with({})
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    assert policy and "unsafe" not in policy[1] and "script-src 'sha256-" in policy[1]
    assert script() in page
    assert "innerHTML" not in page and "outerHTML" not in page and "insertAdjacentHTML" not in page


def embedded(page: str):
    found = re.search(r'<script type="application/json" id="embedded">(.*?)</script>', page, re.DOTALL)
    assert found
    return json.loads(found[1])
