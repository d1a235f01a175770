"""Downloads and archives against servers and files that mean no good: each ends, in time and with one clear line."""

from __future__ import annotations

import contextlib
import gzip
import itertools
import os
import random
import stat
import threading
import time
import zipfile

import pytest
from byte_server import sending
from file_server import Served, serve
from filelock import FileLock

from steppo_gym import DataError, InfrastructureError
from steppo_gym.storage import download as module
from steppo_gym.storage.archives import Archive
from steppo_gym.storage.data_set import LOCK_FILE, fetch_data_set
from steppo_gym.storage.download import MAX_TRIES, download
from steppo_gym.storage.unzip import extract_zip

CONTENT = random.Random(0).randbytes(1_000_000)


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def target(tmp_path):
    return tmp_path / "new" / "data.zip"


def fetch(served, target, **options):
    return download(served.url, target, **{"sha256": None, "progress": False, "back_off_seconds": 0.001} | options)


class Restless(Served):
    """Another version for every request, each cut after `cuts` bytes."""

    def __init__(self, cuts, change, **options):
        super().__init__(CONTENT, **options)
        versions, cuts, served = itertools.count(), itertools.cycle(cuts), self

        class Requests(list):
            def append(self, request):
                super().append(request)
                served.cut_after = [next(cuts)]
                change(served, next(versions))

        self.requests = Requests()


def new_etag(served, version):
    served.etag = f'"v{version}"'


def new_date(served, version):
    served.etag, served.last_modified = None, f"Sun, 06 Nov 1994 08:49:{version % 60:02} GMT"


def new_size(served, version):
    served.etag, served.content = f'"v{version}"', CONTENT[: -1 - version]


def no_version(served, version):
    served.etag = None


@pytest.mark.parametrize("change", [new_etag, new_date, new_size, no_version])
@pytest.mark.parametrize("checks", [True, False], ids=["checks If-Range", "ignores If-Range"])
@pytest.mark.parametrize("cuts", [[500_000], range(100_000, 900_000, 100_000)], ids=["same", "growing"])
def test_a_server_that_never_stays_the_same_is_given_up(target, change, checks, cuts):
    served = Restless(cuts, change, checks_if_range=checks)
    with serve(served), pytest.raises(InfrastructureError, match=r"tries in a row|start over 5 times"):
        fetch(served, target)
    # A server that goes on with another version is asked twice for every start.
    assert len(served.requests) <= 3 * MAX_TRIES
    assert not target.exists()


def test_a_byte_at_a_time_is_no_progress(target):
    served = Restless([1], lambda served, version: None)
    with serve(served), pytest.raises(InfrastructureError, match="5 tries in a row brought nothing"):
        fetch(served, target)
    assert len(served.requests) == MAX_TRIES


@pytest.mark.parametrize("announces", [True, False])
def test_a_file_that_is_too_long_is_refused(target, announces):
    with serve(Served(CONTENT, announces_length=announces)) as served:
        with pytest.raises(DataError, match=r"Expected at most 999999 bytes from http.*found more\. Check the URL"):
            fetch(served, target, max_bytes=999_999)
        assert list(target.parent.iterdir()) == []
        fetch(served, target, max_bytes=1_000_000)


@pytest.mark.parametrize("length", ["9" * 5000, "-1", "1e3", "²"])
def test_a_length_that_is_no_number_is_none(target, length):
    with serve(Served(CONTENT, cut_after=[10], length=length)) as served:
        try:
            fetch(served, target)
        except InfrastructureError:
            assert not target.exists()


def test_a_slow_server_is_given_up(target, monkeypatch):
    monkeypatch.setattr(module, "SLOW_SECONDS", 0.2)
    with serve(Served(CONTENT, pause=0.05)) as served:
        begun = time.monotonic()
        with pytest.raises(InfrastructureError, match=r"5 tries .*\(the server sent \d+ bytes in 0.2 seconds\)"):
            fetch(served, target)
        assert time.monotonic() - begun < 60


def test_all_tries_together_have_a_limit(target):
    served = Restless([100_000], lambda served, version: None, pause=0.05)
    begun = time.monotonic()
    with serve(served), pytest.raises(InfrastructureError, match=r"0.3 seconds were not enough for http"):
        fetch(served, target, max_seconds=0.3)
    assert time.monotonic() - begun < 60


@pytest.mark.parametrize("name", ["data.zip.part", "data.zip.part.version"])
def test_a_link_that_lies_there_is_not_written_through(target, tmp_path, name):
    victim = tmp_path / "victim"
    victim.write_bytes(b"mine")
    target.parent.mkdir()
    (target.parent / "data.zip.part").write_bytes(b"beginning")
    (target.parent / "data.zip.part.version").write_text('"v1"')
    (target.parent / name).unlink()
    (target.parent / name).symlink_to(victim)
    with serve(Served(CONTENT)) as served:
        fetch(served, target)
    assert victim.read_bytes() == b"mine" and target.read_bytes() == CONTENT
    assert not target.is_symlink() and list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize("version", [b"", b"\xff\xfe", b'"v1"\r\nX: y', b"\0"])
def test_a_version_that_is_none_is_not_sent(target, version):
    target.parent.mkdir()
    (target.parent / "data.zip.part").write_bytes(b"beginning")
    (target.parent / "data.zip.part.version").write_bytes(version)
    with serve(Served(CONTENT)) as served:
        fetch(served, target)
    assert target.read_bytes() == CONTENT and "Range" not in served.requests[0]


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        serve(Served(CONTENT)) as served,
        pytest.raises(DataError, match=r"file/data.zip cannot be written \(.*choose"),
    ):
        fetch(served, tmp_path / "file" / "data.zip")


def make_zip(path, *members, compression=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, content in members:
            file.writestr(name, content)
    return path


def files_in(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("names", [["a.part", "a"], ["a", "a.part"], ["a.unfinished", "a"]])
def test_members_beside_each_other_all_come_out(tmp_path, names):
    members = {name: name.encode() * 1000 for name in names}
    extract_zip(make_zip(tmp_path / "x.zip", *members.items()), tmp_path / "folder")
    assert files_in(tmp_path / "folder") == members


def test_a_link_in_the_folder_is_not_followed(tmp_path):
    victim, folder = tmp_path / "victim", tmp_path / "folder"
    victim.write_bytes(b"mine")
    folder.mkdir()
    (folder / "f.part").symlink_to(victim)
    extract_zip(make_zip(tmp_path / "x.zip", ("f", b"new")), folder)
    assert victim.read_bytes() == b"mine" and (folder / "f").read_bytes() == b"new"


def special(name, mode):
    info = zipfile.ZipInfo(name)
    info.external_attr = (mode | 0o666) << 16
    return info


def renamed(name):
    info = zipfile.ZipInfo("name")
    info.filename = name
    return info


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([("a", b"1"), (renamed("a"), b"2")], "every name once in .*found 'a' again"),
        ([("a/b", b"1"), (renamed("a//b"), b"2")], "every name once in .*found 'a//b' again"),
        ([("b", b"1"), (renamed("./b"), b"2")], "every name once in .*found './b' again"),
        ([("a", b"1"), ("a/b", b"2")], "Expected a file where"),
        ([("a/b/c", b"1"), ("a", b"2")], "Expected a file where"),
        ([(special("f", stat.S_IFIFO), b"")], "no special files in .*found 'f'"),
        ([(special("f", stat.S_IFCHR), b"")], "no special files in"),
        ([(special("f", stat.S_IFLNK), b"/etc/passwd")], "no links in"),
        ([(renamed("/etc/x"), b"")], "names inside the folder"),
        ([(renamed("a/../../x"), b"")], "names inside the folder"),
        ([("x" * 300, b"")], "cannot be unpacked into"),
    ],
)
def test_members_that_mean_no_good_are_refused(tmp_path, members, message):
    warned = pytest.warns(UserWarning, match="Duplicate") if "'a' again" in message else contextlib.nullcontext()
    with warned:
        archive = make_zip(tmp_path / "x.zip", *members)
    with pytest.raises(DataError, match=message) as caught:
        extract_zip(archive, tmp_path / "folder")
    assert str(caught.value).count("\n") == 0
    assert not (tmp_path / "folder").exists() or files_in(tmp_path / "folder") == {}


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_unusual_packing_is_refused(tmp_path, method):
    archive = make_zip(tmp_path / "x.zip", ("a", b"1" * 1000), compression=method)
    with pytest.raises(DataError, match=f"stored or deflated files in .*'a', packed by method {method}"):
        extract_zip(archive, tmp_path / "folder")


def test_links_in_a_circle_lead_nowhere(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    os.symlink(folder / "b", folder / "a")
    os.symlink(folder / "a", folder / "b")
    with pytest.raises(DataError, match="Expected names inside the folder"):
        extract_zip(make_zip(tmp_path / "x.zip", ("a/c", b"1")), folder)


def test_a_name_that_is_no_text_is_a_damaged_archive(tmp_path):
    archive = make_zip(tmp_path / "x.zip", ("ä", b"1"))
    archive.write_bytes(archive.read_bytes().replace("ä".encode(), b"\xff\xfe"))
    with pytest.raises(DataError, match="Expected an undamaged zip file"):
        extract_zip(archive, tmp_path / "folder")


def never(head, piece):
    """The start of an answer, and then the same piece again and again."""
    yield head
    for _ in range(100_000):
        yield piece


@pytest.mark.parametrize(
    ("head", "piece"),
    [
        (b"HTTP/1.1 200 OK\r\nX: ", b"a"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;", b"a"),
    ],
    ids=["header", "interim answers", "chunk extension"],
)
def test_what_never_becomes_a_file_is_given_up(target, monkeypatch, head, piece):
    monkeypatch.setattr(module, "SLOW_SECONDS", 0.05)
    with (
        sending(lambda: never(head, piece), pause=0.01) as url,
        pytest.raises(InfrastructureError, match=r"not all of the answer came in 0\.\d+ seconds"),
    ):
        download(f"{url}/x", target, sha256=None, progress=False, back_off_seconds=0.001)


def test_the_bodies_of_redirects_are_not_read(target):
    def answers():
        yield b"HTTP/1.1 302 Found\r\nLocation: /x\r\nTransfer-Encoding: chunked\r\n\r\n"
        while True:
            yield b"10000\r\n" + bytes(65536) + b"\r\n"

    with sending(answers) as url, pytest.raises(DataError, match="more than 20 redirects"):
        download(f"{url}/x", target, sha256=None, progress=False)


def test_a_folder_of_the_name_of_the_file_is_named(target):
    target.mkdir(parents=True)
    for sha256 in (None, "0" * 64):
        with pytest.raises(DataError, match=r"Expected the file .*data.zip or nothing there, found a folder"):
            download("http://127.0.0.1:1/x", target, sha256=sha256)


def fetch_archive(served, folder):
    fetch_data_set((Archive(served.url),), folder, progress=False, say=lambda line: None)


def test_a_file_that_comes_packed_is_refused(target):
    with serve(Served(gzip.compress(CONTENT), encoding="gzip")) as served:
        with pytest.raises(DataError, match=r"the server packs it as 'gzip'\. Fetch it with a browser"):
            fetch(served, target)
        assert list(target.parent.iterdir()) == []
        packed = target.with_name("data.json.gz")
        assert gzip.decompress(fetch(served, packed).read_bytes()) == CONTENT


def test_of_two_addresses_with_one_file_name_none_is_passed_over(tmp_path):
    archives = (Archive("http://127.0.0.1:1/a/x.json"), Archive("http://127.0.0.1:1/b/x.json"))
    with pytest.raises(ValueError, match=r"Several addresses end in 'x\.json', and only one file can have this name"):
        fetch_data_set(archives, tmp_path)


def test_two_do_not_write_the_same_file(tmp_path):
    said, waits = [], threading.Event()

    def say(line):
        said.append(line)
        waits.set()

    with serve(Served(CONTENT)) as served:
        archive = Archive(served.url.replace("data.zip", "data.json"))
        fetching = threading.Thread(target=fetch_data_set, args=((archive,), tmp_path), kwargs={"say": say})
        with FileLock(tmp_path / LOCK_FILE):
            fetching.start()
            assert waits.wait(10)
            assert said == [f"Another process fetches into {tmp_path}; waiting for it."] and not served.requests
        fetching.join(10)
    assert (tmp_path / "data.json").read_bytes() == CONTENT


def test_a_page_in_place_of_an_archive_is_not_what_later_downloads_must_be(tmp_path):
    served = Served(b"<html>Sign in</html>")
    with serve(served):
        with pytest.raises(DataError, match="Expected an undamaged zip file"):
            fetch_archive(served, tmp_path / "folder")
        (tmp_path / "folder" / "data.zip").unlink()
        served.content = make_zip(tmp_path / "x.zip", ("a", b"1")).read_bytes()
        fetch_archive(served, tmp_path / "folder")
    assert (tmp_path / "folder" / "a").read_bytes() == b"1"


@pytest.mark.parametrize("content", [b"\xff\xfe", b"zzz  data.zip\n", b"12"])
def test_a_digest_that_is_none_is_named(tmp_path, content):
    (tmp_path / "data.zip.sha256").write_bytes(content)
    with serve(Served(CONTENT)) as served, pytest.raises(DataError, match=r"a SHA-256 in .*data.zip.sha256, found b"):
        fetch_archive(served, tmp_path)


def test_an_archive_of_an_unknown_version_is_a_damaged_one(tmp_path):
    archive = make_zip(tmp_path / "x.zip", ("a", b"1"))
    content = archive.read_bytes()
    place = content.rindex(b"PK\x01\x02")
    archive.write_bytes(content[: place + 6] + b"\xff" + content[place + 7 :])
    with pytest.raises(DataError, match=r"Expected an undamaged zip file.*zip file version 25.5"):
        extract_zip(archive, tmp_path / "folder")


def test_a_member_without_a_name_is_of_a_damaged_archive(tmp_path):
    archive = make_zip(tmp_path / "x.zip", ("name", b"1"))
    archive.write_bytes(archive.read_bytes().replace(b"name", b"\0ame"))
    with pytest.raises(DataError, match="Expected an undamaged zip file"):
        extract_zip(archive, tmp_path / "folder")
