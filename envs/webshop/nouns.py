"""The nouns of product names, from which the reward tells whether the right kind of product was bought.

Officially spaCy finds them. Its models are an optional download, so there is a fallback that needs none: all words of
letters alone, without the stop words below. On the four pairs of names in the official tests, which ask for title
scores of .85, .31, .17 and below .05, it gives .833, .294, .154 and 0: close, and on the same side of .2, but where it
finds nothing in common the reward is 0, which spaCy may see otherwise. So results say which was used: `tagger.name`.

    tagger = noun_tagger("auto")
    tagger.nouns("Long Sleeve Shirt for Women")    # ("long", "sleeve", "shirt", "women") with `WordTagger`
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import importlib.util
import re
from collections.abc import Sequence
from typing import Any, Literal, Protocol, get_args

from steppo_gym.quoting import one_line

NounSource = Literal["auto", "spacy", "words"]
NOUN_SOURCES: tuple[NounSource, ...] = get_args(NounSource)

SPACY_MODELS = ("en_core_web_sm", "en_core_web_lg")
"""The official reward loads the small model, the official set-up installs the large one; the first found is taken."""
KEPT_NAMES = 8192
"""Names whose nouns are kept: every purchase asks for those of two names, and the goals' come again and again."""

_WORDS = re.compile(r"\w{2,}")
_STOP_WORD_LIST = """
    about all also and any are at be but by can each every for from has have how in into is it its more most no not of
    off on only or our out over per so such than that the their then these this those to up upon very was we were when
    which while who will with without you your
"""
_STOP_WORDS = frozenset(_STOP_WORD_LIST.split())
_NOUNS = ("NOUN", "PROPN")


class NounTagger(Protocol):
    """Finds nouns. Any object with these two members will do, for example one that looks recorded nouns up."""

    @property
    def name(self) -> str:
        """What results are reported with."""
        ...

    def nouns(self, text: str) -> Sequence[str]:
        """Lower-case nouns in the order of the text, repeated as often as they stand there."""
        ...


@dataclasses.dataclass(frozen=True)
class WordTagger:
    """The fallback: takes every word of at least two letters for a noun, except stop words."""

    name: str = "words"

    def nouns(self, text: str) -> tuple[str, ...]:
        """Lower-case words of the text."""
        return _words(text)


@dataclasses.dataclass(frozen=True)
class SpacyTagger:
    """spaCy's part-of-speech tags, as in the official reward.

    Args:
        model: an installed package with a pipeline.

    Raises:
        ImportError: at the first text, if spaCy or the model is not installed; `noun_tagger` finds that before.
    """

    model: str

    @property
    def name(self) -> str:
        """Tells the models apart, which tag differently."""
        return f"spacy/{self.model}"

    def nouns(self, text: str) -> tuple[str, ...]:
        """Lower-case tokens tagged as nouns or proper nouns."""
        return _spacy_nouns(self.model, text)


def noun_tagger(name: NounSource) -> NounTagger:
    """The tagger to use.

    Args:
        name: "spacy", "words" for the fallback, or "auto" for spaCy where it is installed with a model.

    Raises:
        ValueError: no such name.
        ImportError: "spacy" was asked for and it, or a model, is not installed; or the model that is cannot be loaded.
    """
    if name not in NOUN_SOURCES:
        raise ValueError(f"Expected nouns of {', '.join(map(repr, NOUN_SOURCES))}, found {name!r}.")
    if name == "words":
        return WordTagger()
    missing = _missing()
    if missing is None:
        model = next(model for model in SPACY_MODELS if _is_installed(model))
        _load(model)
        return SpacyTagger(model)
    if name == "spacy":
        raise ImportError(missing)
    return WordTagger()


def _load(model: str) -> None:
    """Load a model now: one of another spaCy would be found at the first purchase, in the middle of a run."""
    try:
        _pipeline(model)
    except Exception as error:
        raise ImportError(
            f"spaCy's model {model} cannot be loaded ({type(error).__name__}: {one_line(str(error), 200)}). Run "
            f'`python -m spacy download {model}`, or choose the nouns "words".'
        ) from error


def _missing() -> str | None:
    """What to install for spaCy, None if nothing."""
    if not _is_installed("spacy"):
        return (
            "Finding nouns with spaCy needs extra packages. Run `pip install 'steppo-gym[webshop-spacy]'` and "
            f'`python -m spacy download {SPACY_MODELS[0]}`, or choose the nouns "words".'
        )
    if not any(map(_is_installed, SPACY_MODELS)):
        return (
            f"spaCy is installed, but none of its models {', '.join(SPACY_MODELS)}. Run "
            f'`python -m spacy download {SPACY_MODELS[0]}`, or choose the nouns "words".'
        )
    return None


def _is_installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


@functools.lru_cache(KEPT_NAMES)
def _words(text: str) -> tuple[str, ...]:
    return tuple(word for word in _WORDS.findall(text.lower()) if word.isalpha() and word not in _STOP_WORDS)


@functools.lru_cache(KEPT_NAMES)
def _spacy_nouns(model: str, text: str) -> tuple[str, ...]:
    return tuple(token.text.lower() for token in _pipeline(model)(text) if token.pos_ in _NOUNS)


@functools.lru_cache(len(SPACY_MODELS))
def _pipeline(model: str) -> Any:
    # Imported here: spaCy takes seconds, and most runs do without. Neither of the excluded parts helps to tag.
    return importlib.import_module(model).load(exclude=["ner", "lemmatizer"])
