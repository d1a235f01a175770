"""Names of the built-in encyclopaedias: two known words each, every combination in one split only.

A policy that meets a held-out name knows both its words and has never seen them together, so names have to be copied
and cannot be remembered.

>>> split_of("Ada Barlow")
'validation'
"""

from __future__ import annotations

import hashlib
from functools import cache

from steppo_gym.keywords import check_choice, check_split

SPLITS = ("train", "validation", "test")

_WORDS = {
    "person": (
        "Ada Alma Carla Clara Dora Elsa Flora Frida Hanna Hilda Ida Ines Julia Karla Lena Lydia Marta Mina Nadia Paula "
        "Rita Rosa Selma Thea Ursula Anton Boris Cecil Edgar Emil Erik Gustav Hector Hugo Igor Jakob Jonas Konrad Leo "
        "Magnus Milan Nils Oskar Otto Rufus Stefan Viktor Walter",
        "Abbott Barlow Becker Birch Blom Calder Carver Dahl Dunn Ekberg Falk Finch Garner Grimm Hale Holm Hurst Ivers "
        "Jansen Keller Kemp Lang Lindt Lowell Marsh Mercer Moss Nash Nolan Ostrow Palmer Petrov Quinn Ramsey Reed "
        "Rossi Sandor Sharp Stone Tanner Thorne Vance Vogel Walsh Webb Weber Yates Zeller",
    ),
    "work": (
        "Amber Ancient Bitter Blind Borrowed Broken Burning Crimson Distant Empty Endless Faded Fallen Final Forgotten "
        "Frozen Gentle Golden Hidden Hollow Honest Iron Lonely Lost Narrow Paper Quiet Restless Sacred Scarlet Secret "
        "Silent Silver Stolen Tender Twisted Velvet Wandering Wild Winter",
        "Anchor Arrow Bell Candle Circle Clock Crown Dance Door Dream Echo Feather Flame Garden Harvest Horizon Hour "
        "Island Journey Key Lantern Letter Mask Memory Mirror Mountain Night Ocean Orchard Promise Rain River Road "
        "Shadow Song Star Storm Tide Tower Window",
    ),
    "town": (
        "Alder Ash Bear Beech Black Bright Castle Chalk Clay Cold Copper Crane Deep Dry East Elk Elm Fair Flint Fox "
        "Glass Grey Green Hawk Heron High Holly Lark Long Low Maple North Oak Old Otter Pine Raven Red Salt South",
        "Abbey Bank Bay Bend Bluff Bridge Brook Cliff Common Corner Cove Creek Crossing Dale Down Falls Ferry Field "
        "Ford Forge Gate Glen Grove Harbour Haven Heath Hill Hollows Landing Market Meadow Mill Moor Point Port Ridge "
        "Spring Valley Village Wharf",
    ),
    "company": (
        "Apex Arctic Atlas Beacon Cobalt Comet Cosmos Delta Eagle Ember Falcon Global Harmony Imperial Jupiter Liberty "
        "Meridian Monarch Neptune Orion Pacific Phoenix Summit Titan",
        "Alliance Associates Brothers Company Corporation Enterprises Exchange Federation Foundry Guild Holdings House "
        "Industries Institute Laboratory League Limited Network Partners Press Society Studios Trust Works",
    ),
}

KINDS = tuple(_WORDS)
"""The kinds of things an encyclopaedia is about."""


@cache
def names(kind: str, split: str) -> tuple[str, ...]:
    """All names of a kind that may occur in a split, in a fixed order."""
    check_choice("kind", kind, KINDS)
    check_split(split, SPLITS)
    first, second = (words.split() for words in _WORDS[kind])
    return tuple(name for one in first for other in second if split_of(name := f"{one} {other}") == split)


@cache
def word_lists() -> tuple[tuple[str, ...], ...]:
    """First words and second words of each kind; no word is in two lists."""
    return tuple(tuple(words.split()) for pair in _WORDS.values() for words in pair)


def is_man(name: str) -> bool:
    """Whether a person's first name is a man's."""
    first_names = _WORDS["person"][0].split()
    return first_names.index(name.split()[0]) >= len(first_names) // 2


def split_of(name: str) -> str:
    """The only split that a name occurs in: half of all names are "train", a quarter each of the other two."""
    remainder = hashlib.sha256(name.encode()).digest()[0] % 4
    return {0: "validation", 1: "test"}.get(remainder, "train")
