import hashlib
import random
import socket

import pytest
from file_server import Served, serve

from steppo_gym import DataError, InfrastructureError
from steppo_gym.storage import download as module
from steppo_gym.storage.download import MAX_TRIES, download
from steppo_gym.storage.file_stamps import file_sha256

CONTENT = random.Random(0).randbytes(3_000_000)
OTHER = random.Random(1).randbytes(3_000_000)
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def target(tmp_path):
    return tmp_path / "new" / "data.zip"


def fetch(served, target, sha256=DIGEST, **kwargs):
    return download(served.url, target, sha256=sha256, progress=False, back_off_seconds=0.01, **kwargs)


def leftovers(target):
    return sorted(path.name for path in target.parent.iterdir() if path != target)


@pytest.mark.parametrize("announces_length", [True, False])
def test_a_whole_file_in_one_go(target, announces_length):
    with serve(Served(CONTENT, announces_length=announces_length)) as served:
        assert fetch(served, target) == target
    assert target.read_bytes() == CONTENT
    assert leftovers(target) == []
    assert len(served.requests) == 1
    assert "Range" not in served.requests[0]


def test_an_empty_file(target):
    with serve(Served(b"")) as served:
        fetch(served, target, sha256=None)
    assert target.read_bytes() == b""


def test_a_redirect_is_followed(target):
    with serve(Served(CONTENT, redirect_to="/elsewhere")) as served:
        fetch(served, target)
    assert target.read_bytes() == CONTENT


@pytest.mark.parametrize(
    "version",
    [{"etag": '"v1"'}, {"etag": None, "last_modified": "Sun, 06 Nov 1994 08:49:37 GMT"}],
    ids=["etag", "date"],
)
def test_a_cut_connection_is_taken_up_where_it_was_cut(target, version):
    with serve(Served(CONTENT, cut_after=[1_000_000, 500_000], **version)) as served:
        fetch(served, target)
    assert target.read_bytes() == CONTENT
    assert leftovers(target) == []
    assert [request.get("Range") for request in served.requests] == [None, "bytes=1000000-", "bytes=1500000-"]
    assert served.requests[1]["If-Range"] == next(filter(None, version.values()))


def test_progress_is_no_failure_however_often_the_connection_is_cut(target):
    with serve(Served(CONTENT, cut_after=[200_000] * 14)) as served:
        fetch(served, target)
    assert target.read_bytes() == CONTENT
    assert len(served.requests) == 15


def test_the_next_call_goes_on_where_an_interrupted_one_stopped(target, monkeypatch):
    class Interrupting:
        def __init__(self, *args, **kwargs):
            self.total = self.n = 0

        def update(self, size):
            raise KeyboardInterrupt

        def __enter__(self):
            return self

        def __exit__(self, *error):
            return None

    with serve(Served(CONTENT)) as served:
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(module, "tqdm", Interrupting)
            fetch(served, target)
        assert not target.exists()
        arrived = (target.parent / "data.zip.part").stat().st_size
        assert 0 < arrived < len(CONTENT)
        fetch(served, target)
    assert served.requests[1]["Range"] == f"bytes={arrived}-"
    assert target.read_bytes() == CONTENT


def partly_arrived(target, content, version='"v1"'):
    target.parent.mkdir()
    (target.parent / "data.zip.part").write_bytes(content)
    (target.parent / "data.zip.part.version").write_text(version)


@pytest.mark.parametrize(
    "server",
    [
        {"etag": '"v2"'},
        {"etag": '"v2"', "checks_if_range": False},
        {"answers_ranges": False},
        {"etag": None},
    ],
    ids=["changed", "changed and unchecked", "no ranges", "no version any more"],
)
def test_what_arrived_of_another_version_is_thrown_away(target, server):
    partly_arrived(target, OTHER[:1_000_000])
    with serve(Served(CONTENT, **server)) as served:
        fetch(served, target, sha256=None)
    assert target.read_bytes() == CONTENT
    assert served.requests[0]["Range"] == "bytes=1000000-"
    assert leftovers(target) == []


def test_a_file_that_changes_between_two_tries_is_fetched_from_the_start(target):
    served = Served(OTHER, cut_after=[1_000_000])

    class Changing(list):
        def append(self, request):
            super().append(request)
            if len(self) == 2:
                served.content, served.etag = CONTENT, '"v2"'

    served.requests = Changing()
    with serve(served):
        fetch(served, target)
    assert target.read_bytes() == CONTENT
    assert len(served.requests) == 2


@pytest.mark.parametrize("etag", [None, 'W/"v1"'], ids=["no etag", "weak etag"])
def test_without_a_version_a_cut_download_starts_over(target, etag):
    with serve(Served(CONTENT, etag=etag, cut_after=[1_000_000])) as served:
        fetch(served, target)
    assert target.read_bytes() == CONTENT
    assert [request.get("Range") for request in served.requests] == [None, None]


def test_all_had_arrived_already(target):
    partly_arrived(target, CONTENT)
    with serve(Served(CONTENT)) as served:
        fetch(served, target)
    assert target.read_bytes() == CONTENT
    assert len(served.requests) == 1


def test_more_had_arrived_than_there_is(target):
    partly_arrived(target, CONTENT + b"more")
    with serve(Served(CONTENT)) as served:
        fetch(served, target)
    assert target.read_bytes() == CONTENT


def test_a_wrong_digest_throws_the_file_away(target):
    with (
        serve(Served(OTHER)) as served,
        pytest.raises(DataError, match=f"Expected the SHA-256 {DIGEST} of http.*found"),
    ):
        fetch(served, target)
    assert list(target.parent.iterdir()) == []


def test_a_digest_may_be_written_in_upper_case(target):
    with serve(Served(CONTENT)) as served:
        fetch(served, target, sha256=DIGEST.upper())
        fetch(served, target, sha256=DIGEST.upper())


def test_a_file_that_is_there_is_checked_and_not_fetched(target):
    target.parent.mkdir()
    target.write_bytes(CONTENT)
    with serve(Served(OTHER)) as served:
        assert fetch(served, target) == target
        assert fetch(served, target, sha256=None) == target
        with pytest.raises(DataError, match=r"SHA-256 0000 of .*data\.zip, found [0-9a-f]{64}\. Delete the file"):
            fetch(served, target, sha256="0000")
    assert served.requests == []
    assert file_sha256(target) == DIGEST


@pytest.mark.parametrize("status", [404, 403, 410])
def test_a_missing_file_is_not_asked_for_again(target, status):
    with serve(Served(CONTENT, statuses=[status])) as served, pytest.raises(DataError, match=f"answered {status} "):
        fetch(served, target)
    assert len(served.requests) == 1
    assert not target.exists()


@pytest.mark.parametrize("statuses", [[500], [503, 429, 502]])
def test_a_failing_server_is_asked_again(target, statuses):
    number = len(statuses)
    with serve(Served(CONTENT, statuses=statuses)) as served:
        fetch(served, target)
    assert target.read_bytes() == CONTENT
    assert len(served.requests) == number + 1


def test_a_failing_server_keeps_what_has_arrived(target):
    partly_arrived(target, CONTENT[:1_000_000])
    with serve(Served(CONTENT, statuses=[503] * 9)) as served:
        with pytest.raises(InfrastructureError, match=r"(?s)download: 5 tries .*answered 503.*1000000 bytes are kept"):
            fetch(served, target)
        assert len(served.requests) == MAX_TRIES
        served.statuses.clear()
        fetch(served, target)
    assert target.read_bytes() == CONTENT


def test_waits_get_longer_and_start_over_after_progress(target, monkeypatch):
    waits = []
    monkeypatch.setattr(module.time, "sleep", waits.append)
    with serve(Served(CONTENT, statuses=[500, 500, 500], cut_after=[1_000_000])) as served:
        download(served.url, target, sha256=DIGEST, progress=False, back_off_seconds=3)
    assert waits == [3, 6, 12, 3]


def test_nobody_answers(target):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/data.zip"
        with pytest.raises(InfrastructureError, match="0 bytes are kept"):
            download(url, target, sha256=None, progress=False, back_off_seconds=0.001)


@pytest.mark.parametrize("url", ["data.zip", "ftp://127.0.0.1/data.zip", "file:///etc/passwd"])
def test_only_http(target, url):
    with pytest.raises(DataError, match="Expected the http or https URL of a file, got"):
        download(url, target, sha256=None, progress=False)


def test_redirects_in_a_circle(target):
    with serve(Served(CONTENT)) as served:
        served.redirect_to = f"{served.url}?again"  # a whole URL, so no path is ever equal to it
        with pytest.raises(DataError, match="Expected the http or https URL of a file"):
            fetch(served, target)


def test_progress_is_shown_on_stderr(target, capsys):
    with serve(Served(CONTENT)) as served:
        download(served.url, target, sha256=DIGEST)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "data.zip: 100%" in captured.err
