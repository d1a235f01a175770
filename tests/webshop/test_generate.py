"""The built-in shop: layout, near-duplicates, splits, and words that the reward can tell apart."""

from __future__ import annotations

import difflib
import itertools
import json
import re
import subprocess
import sys
from collections import Counter, defaultdict

import pytest

from steppo_gym.envs.webshop.built_in.generate import FILE_NAMES, SPLITS, generate_files, split_of, write_files
from steppo_gym.envs.webshop.built_in.words import DEPARTMENTS
from steppo_gym.envs.webshop.nouns import WordTagger
from steppo_gym.envs.webshop.reward import score
from steppo_gym.envs.webshop.store.catalogue import Goal, Product
from steppo_gym.errors import DataError

FILES = generate_files(1000)


def looks_alike(one: str, other: str) -> bool:
    """Whether the official fuzzy comparison takes two texts for one, written from its definition."""
    words, others = set(one.split()), set(other.split())
    common = " ".join(sorted(words & others))
    longer = [" ".join([common, *sorted(rest)]).strip() for rest in (words - others, others - words)]
    pairs = [(common, longer[0]), (common, longer[1]), (longer[0], longer[1])]
    return any(a and b and difflib.SequenceMatcher(None, a, b).ratio() > 0.85 for a, b in pairs)


def test_items_have_the_official_layout():
    asins = [item["asin"] for item in FILES.items]
    assert len(set(asins)) == 1000
    assert all(re.fullmatch("B[A-Z0-9]{9}", asin) for asin in asins)
    assert {item["category"] for item in FILES.items} == {"fashion", "beauty", "garden", "electronics", "grocery"}
    for item in FILES.items:
        assert re.fullmatch(r"\$\d+\.\d\d( - \$\d+\.\d\d)?", item["pricing"])
        assert item["query"] == item["query"].lower().strip()
        assert item["product_category"].count(" \N{SINGLE RIGHT-POINTING ANGLE QUOTATION MARK} ") == 2
        assert item["customization_options"] == "" or all(item["customization_options"].values())
    assert list(FILES.attributes) == list(FILES.human) == asins


def test_prices_and_options_vary():
    ranges = sum(" - " in item["pricing"] for item in FILES.items)
    assert 100 < ranges < 350
    counts = Counter(len(item["customization_options"] or ()) for item in FILES.items)
    assert all(counts[number] > 100 for number in (0, 1, 2))


def test_a_product_says_what_is_wanted_of_it():
    for item in FILES.items:
        row, (human,) = FILES.attributes[item["asin"]], FILES.human[item["asin"]]
        bullets = " ".join(item["small_description"]).lower()
        wanted = row["instruction_attributes"]
        assert human["instruction_attributes"] == wanted
        assert all(word in bullets for word in wanted)
        assert sum(word in item["name"].lower() for word in wanted) == 2
        for text in (row["instruction"], human["instruction"]):
            assert all(word in text for word in (*wanted, item["query"]))
        options = {name.lower(): values for name, values in (item["customization_options"] or {}).items()}
        named = dict(pair.split(": ") for pair in human["options"] if pair)
        assert list(named.values()) == human["instruction_options"]
        assert named.keys() == options.keys()
        for name, value in named.items():
            assert value in [entry["value"] for entry in options[name]]
            assert value in human["instruction"]


def test_near_duplicates_differ_in_one_thing():
    families = defaultdict(list)
    for item in FILES.items:
        families[(item["name"].split()[0], item["name"].split()[1], item["query"])].append(item)
    differences = Counter()
    for family in families.values():
        for one, other in itertools.combinations(family, 2):
            fields = [
                FILES.attributes[one["asin"]]["attributes"] != FILES.attributes[other["asin"]]["attributes"],
                one["customization_options"] != other["customization_options"],
                one["pricing"] != other["pricing"],
            ]
            if sum(fields) == 1:
                differences[fields.index(True)] += 1
    assert all(differences[index] >= 100 for index in range(3)), differences


def test_words_of_a_department_do_not_look_alike():
    for department in DEPARTMENTS.values():
        for words in (department.attributes, *department.options.values()):
            for one, other in itertools.combinations(words, 2):
                assert not looks_alike(one, other), (one, other)
                assert one not in other
                assert other not in one


def test_the_comparison_of_words_sees_what_looks_alike():
    assert looks_alike("large", "x large")
    assert looks_alike("12 ounce", "16 ounce")


def test_the_reward_tells_option_values_apart():
    product = Product("B1", "Lamp", "", (), ("x",), {}, (1.0,), "", "", "")
    for department in DEPARTMENTS.values():
        for name, values in department.options.items():
            for wanted, chosen in itertools.product(values, repeat=2):
                for options in ((wanted,), {name: wanted}):
                    goal = Goal("B1", "", ("x",), options, 9.0, "", "", "Lamp")
                    result = score(goal, product=product, chosen={name: chosen}, price=1.0, tagger=WordTagger())
                    assert result.r_option == float(wanted == chosen), (wanted, chosen)


def test_splits_hold_combinations_of_known_words():
    goals = {split: set() for split in SPLITS}
    for item in FILES.items:
        wanted = FILES.attributes[item["asin"]]["instruction_attributes"]
        goals[split_of(item["query"], wanted)].add((item["query"], frozenset(wanted)))
    assert not goals["train"] & goals["validation"]
    assert not goals["train"] & goals["test"]
    assert not goals["validation"] & goals["test"]
    assert all(len(combinations) > 20 for combinations in goals.values())
    known = {word for query, wanted in goals["train"] for word in (query, *wanted)}
    for split in ("validation", "test"):
        assert {word for query, wanted in goals[split] for word in (query, *wanted)} <= known


def test_the_order_of_attributes_does_not_change_the_split():
    for wanted in itertools.permutations(("slim fit", "zip pockets", "quick drying")):
        assert split_of("hoodie", wanted) == split_of("hoodie", ("quick drying", "slim fit", "zip pockets"))


def test_the_same_seed_gives_the_same_shop_in_another_process():
    code = (
        "import dataclasses, json; from steppo_gym.envs.webshop.built_in.generate import generate_files;"
        "print(json.dumps(dataclasses.asdict(generate_files(20, seed=3))))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    files = generate_files(20, seed=3)
    assert json.loads(done.stdout) == {"items": files.items, "attributes": files.attributes, "human": files.human}
    assert generate_files(20, seed=4) != files


def test_files_are_written_and_never_overwritten(tmp_path):
    files = generate_files(7)
    write_files(tmp_path / "shop", files)
    contents = [json.loads((tmp_path / "shop" / name).read_text(encoding="utf-8")) for name in FILE_NAMES]
    assert contents == [files.items, files.attributes, files.human]
    with pytest.raises(DataError, match="Expected no file"):
        write_files(tmp_path / "shop", files)


def test_a_shop_needs_a_product():
    assert len(generate_files(1).items) == 1
    with pytest.raises(ValueError, match="at least 1"):
        generate_files(0)
