"""Official files: which of a folder are taken, read unchanged and one at a time, and what is said of damaged ones."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import hypothesis
import pytest
from hypothesis import strategies as st

from steppo_gym.envs.webshop.data import _Nesting, find_files, read_by_asin, read_items
from steppo_gym.errors import DataError

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**62), 2**62)
    | st.floats(allow_nan=False, allow_infinity=False)
    # Half of a pair of surrogates is no text.
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner),
    max_leaves=8,
)
ALL = ("items_shuffle.json", "items_shuffle_1000.json", "items_ins_v2.json", "items_ins_v2_1000.json")


def write(folder: Path, *names: str, content: str = "[]") -> Path:
    for name in names:
        (folder / name).write_text(content, encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("names", "items", "attributes"),
    [
        (ALL, "items_shuffle.json", "items_ins_v2.json"),
        (ALL[1:], "items_shuffle_1000.json", "items_ins_v2_1000.json"),
        (ALL[1:3], "items_shuffle_1000.json", "items_ins_v2.json"),
        (("items_shuffle_100.json", *ALL[2:]), "items_shuffle_100.json", "items_ins_v2_1000.json"),
        ((*ALL, "items_shuffle_old.json", "items_ins_v2_.json", "items_human_ins.json.part"), ALL[0], ALL[2]),
    ],
)
def test_the_full_files_are_preferred(tmp_path, names, items, attributes):
    files = find_files(write(tmp_path, *names))
    assert (files.items.name, files.attributes.name, files.human) == (items, attributes, None)
    assert files.paths == (tmp_path / items, tmp_path / attributes)


def test_human_instructions_are_found(tmp_path):
    write(tmp_path, *ALL, "items_human_ins.json")
    assert find_files(str(tmp_path)).human == tmp_path / "items_human_ins.json"


def test_a_file_of_products_says_which_to_take(tmp_path):
    files = find_files(write(tmp_path, *ALL) / "items_shuffle_1000.json")
    assert (files.items.name, files.attributes.name) == ("items_shuffle_1000.json", "items_ins_v2_1000.json")


def test_the_home_folder_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path, *ALL)
    assert find_files("~").items == tmp_path.resolve() / "items_shuffle.json"


@pytest.mark.parametrize("chosen", ["", "items_shuffle_1000.json"])
def test_links_to_files_of_other_names_are_followed(tmp_path, monkeypatch, chosen):
    """As the Hub's client lays files down: what they are called is the name of the link."""
    (tmp_path / "snapshot").mkdir()
    for number, name in enumerate((ALL[1], ALL[3], "items_human_ins.json")):
        write(tmp_path, f"{number}")
        (tmp_path / "snapshot" / name).symlink_to(tmp_path / f"{number}")
    monkeypatch.setenv("SNAPSHOT", str(tmp_path / "snapshot"))
    found = find_files(f"$SNAPSHOT/{chosen}")
    assert find_files(found.items) == found
    assert [path.name for path in found.paths] == [ALL[1], ALL[3], "items_human_ins.json"]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ((), r"Expected items_shuffle\.json or .* found no file items_\*\.json\. `steppo-gym download webshop`"),
        (("items_ins_v2.json",), r"Expected items_shuffle\.json or .*, found items_ins_v2\.json"),
        (("items_shuffle.json",), r"Expected items_ins_v2\.json.*found items_shuffle\.json\. `steppo-gym download"),
        (("items_shuffle.json", "items_ins_v2_1000.json"), r"covers items_shuffle\.json, in "),
        (("items_shuffle_1000.json", "items_ins_v2_100.json"), r"covers items_shuffle_1000\.json, in "),
        (
            ("items_shuffle_100.json", "items_shuffle_1000.json", "items_ins_v2.json"),
            r"Expected one file of products in .*, found items_shuffle_100\.json, items_shuffle_1000\.json\. Pass",
        ),
    ],
)
def test_what_is_missing_or_not_clear_is_said(tmp_path, names, message):
    with pytest.raises(DataError, match=message):
        find_files(write(tmp_path, *names))


def test_a_path_that_is_no_data_is_said(tmp_path):
    with pytest.raises(DataError, match="found nothing there"):
        find_files(tmp_path / "nowhere")
    with pytest.raises(DataError, match="found another file there"):
        find_files(write(tmp_path, "items_ins_v2.json") / "items_ins_v2.json")


@hypothesis.settings(max_examples=30)
@hypothesis.example([{"a": 1.5, "b": 1, "c": [0.1, 1e300, -0.0, "\n\u20ac"]}])
@hypothesis.given(st.lists(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), JSON)))
def test_a_list_is_read_as_json_reads_it(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("data") / "items_shuffle.json"
    for options in ({}, {"ensure_ascii": False, "indent": 2}):
        path.write_text(json.dumps(content, **options), encoding="utf-8")
        read = list(read_items(path, progress=False))
        assert read == content
        # 1 and 1.0 are equal but not the same.
        assert repr(read) == repr(content)


@hypothesis.settings(max_examples=30)
@hypothesis.example({"b": 1.5, "a": {"c": [0.1, 1e300], "d": None}})
@hypothesis.given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), JSON))
def test_an_object_is_read_as_json_reads_it(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("data") / "items_ins_v2.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    assert repr(dict(read_by_asin(path, progress=False))) == repr(content)


def test_memory_does_not_grow_with_the_file(tmp_path):
    peaks = []
    for number in (200, 5000):
        path = tmp_path / f"items_shuffle_{number}.json"
        path.write_text(json.dumps([{"asin": str(i), "name": "word " * 200} for i in range(number)]))
        list(read_items(path, progress=False))
        tracemalloc.start()
        assert sum(1 for _ in read_items(path, progress=False)) == number
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    # 5 MB of text; read at once it would be 25 times the small one.
    assert peaks[1] < 1.5 * peaks[0] + 200_000


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "Expected a JSON list in .*, found b'' at its start"),
        ("  ", "Expected a JSON list in .*, found b'' at its start"),
        ('{"a": 1}', "Expected a JSON list in .*, found b'{' at its start"),
        ("[1]", "Expected objects in .*, found 1 as number 0"),
        ('[{"a": 1}, null]', "found None as number 1"),
        ('[{"a": 1}, {"a"', "Expected whole and valid JSON in .*interrupted"),
        ('[{"a": 1}', "Expected whole and valid JSON"),
        ('[{"a": 1}]]', "Expected whole and valid JSON"),
        ('[{"a": 1e}]', "Expected whole and valid JSON"),
    ],
)
def test_damaged_lists_are_explained(tmp_path, content, message):
    path = write(tmp_path, "items_shuffle.json", content=content) / "items_shuffle.json"
    with pytest.raises(DataError, match=message):
        list(read_items(path, progress=False))


@pytest.mark.parametrize("content", ["[]", "{", '{"a": }', '{"a": 1}}', "null"])
def test_damaged_objects_are_explained(tmp_path, content):
    path = write(tmp_path, "items_ins_v2.json", content=content) / "items_ins_v2.json"
    with pytest.raises(DataError, match=r"Expected a JSON object|Expected whole and valid JSON"):
        dict(read_by_asin(path, progress=False))


def test_bytes_that_are_no_text_are_explained(tmp_path):
    path = tmp_path / "items_shuffle.json"
    path.write_bytes(b'[{"a": "\xff"}]')
    with pytest.raises(DataError, match="Expected whole and valid JSON"):
        list(read_items(path, progress=False))


def deepest(text):
    depths = [0]
    quoted = escaped = False
    for letter in text:
        if quoted:
            escaped, quoted = letter == "\\" and not escaped, escaped or letter != '"'
        elif letter == '"':
            quoted = True
        elif letter in "[{":
            depths.append(depths[-1] + 1)
        elif letter in "]}":
            depths.append(depths[-1] - 1)
    return max(depths)


@hypothesis.given(st.text(st.sampled_from('[]{}"\\a'), max_size=40), st.integers(1, 7))
def test_nesting_is_counted_outside_of_texts_in_chunks_of_any_size(text, size):
    nesting = _Nesting()
    chunks = [text[start : start + size] for start in range(0, len(text), size)]
    assert max([0, *(nesting.deepest_in(chunk.encode()) for chunk in chunks)]) == deepest(text)


def test_brackets_in_texts_are_no_nesting(tmp_path):
    content = [{"name": "[" * 5000 + '\\"' * 500 + "{" * 100_000}]
    path = write(tmp_path, "items_shuffle.json", content=json.dumps(content)) / "items_shuffle.json"
    assert list(read_items(path, progress=False)) == content


@pytest.mark.data
def test_the_official_files_are_read(shared_data):
    files = find_files(shared_data / "webshop")
    assert (files.items.name, files.attributes.name) == ("items_shuffle_100.json", "items_ins_v2_1000.json")
    assert list(read_items(files.items, progress=False)) == json.loads(files.items.read_text(encoding="utf-8"))
    rows = json.loads(files.attributes.read_text(encoding="utf-8"))
    assert dict(read_by_asin(files.attributes, progress=False)) == rows
    assert len(rows) == 1000
