"""Nouns by words and by spaCy, and which of the two is taken."""

from __future__ import annotations

import copy
import importlib
import pickle
import sys

import gymnasium
import pytest
from hypothesis import given
from hypothesis import strategies as st

from steppo_gym.envs.webshop import nouns
from steppo_gym.envs.webshop.nouns import SPACY_MODELS, SpacyTagger, WordTagger, noun_tagger


@pytest.mark.parametrize(
    "text, found",
    [
        ("Long Sleeve Shirt for Women, with Pockets", ["long", "sleeve", "shirt", "women", "pockets"]),
        ("Women's 4K T-Shirt (2pcs)", ["women", "shirt"]),
        ("Shirt shirt SHIRT", ["shirt", "shirt", "shirt"]),
        ("Caf\u00e9 \u9ed1\u8272 snake_case", ["caf\u00e9", "\u9ed1\u8272"]),
        ("The and of 12 \u00b2\u00b9 a $%&", []),
        ("", []),
    ],
)
def test_words(text, found):
    assert list(WordTagger().nouns(text)) == found


@given(st.text())
def test_any_text_has_words(text):
    found = WordTagger().nouns(text)
    assert all(len(word) > 1 and word.isalpha() for word in found)
    assert WordTagger().nouns(f"{text}\n{text}") == found * 2


def test_the_nouns_of_a_name_are_kept_and_no_more_than_so_many():
    tagger = WordTagger()
    assert tagger.nouns("Desk Lamp") is tagger.nouns("Desk Lamp")
    assert nouns._words.cache_info().maxsize == nouns._spacy_nouns.cache_info().maxsize == nouns.KEPT_NAMES


@pytest.mark.parametrize("tagger", [WordTagger(), SpacyTagger("en_core_web_sm")])
def test_a_tagger_can_be_sent_to_a_worker(tagger):
    assert pickle.loads(pickle.dumps(tagger)) == copy.deepcopy(tagger) == tagger


def test_an_unknown_source_is_refused():
    with pytest.raises(ValueError, match="Expected nouns of 'auto', 'spacy', 'words', found 'nltk'"):
        noun_tagger("nltk")


@pytest.fixture
def hidden(monkeypatch):
    """Makes packages look as if they were not installed."""

    def hide(*names):
        for name in names:
            monkeypatch.setitem(sys.modules, name, None)

    return hide


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Makes modules that are found before any others, and forgets them."""
    monkeypatch.syspath_prepend(tmp_path)

    def install(name, code=""):
        monkeypatch.setitem(sys.modules, name, None)
        del sys.modules[name]
        (tmp_path / f"{name}.py").write_text(code)
        importlib.invalidate_caches()
        return tmp_path / f"{name}.py"

    nouns._pipeline.cache_clear()
    yield install
    nouns._pipeline.cache_clear()


def test_without_spacy_the_words_are_taken(hidden):
    hidden("spacy")
    assert noun_tagger("auto") == noun_tagger("words") == WordTagger()
    with pytest.raises(ImportError, match=r"Run `pip install 'steppo-gym\[webshop-spacy\]'` and `python -m spacy down"):
        noun_tagger("spacy")


def test_spacy_without_a_model_is_not_enough(hidden, tmp_path, monkeypatch):
    (tmp_path / "spacy.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    hidden(*SPACY_MODELS)
    assert noun_tagger("auto") == WordTagger()
    with pytest.raises(ImportError, match=r"spaCy is installed, but none of its models .* Run `python -m spacy down"):
        noun_tagger("spacy")


@pytest.mark.parametrize("model", SPACY_MODELS)
def test_an_installed_model_is_taken_and_loaded_once(installed, hidden, model):
    installed("spacy")
    loaded = installed(model, "def load(exclude):\n    with open(__file__ + '.loaded', 'a') as file: file.write('.')\n")
    hidden(*(other for other in SPACY_MODELS if other != model))
    for source in ("auto", "spacy"):
        assert noun_tagger(source) == SpacyTagger(model)
        assert noun_tagger(source).name == f"spacy/{model}"
    assert loaded.with_name(f"{loaded.name}.loaded").read_text() == "."


@pytest.mark.parametrize("source", ["auto", "spacy"])
@pytest.mark.parametrize(
    "code", ["raise OSError('[E053] no\\nconfig.cfg')", "def load(exclude):\n    raise KeyError('no config.cfg')"]
)
def test_a_model_that_spacy_cannot_load_is_found_at_once(installed, source, code):
    installed("spacy")
    installed(SPACY_MODELS[0], code)
    with pytest.raises(
        ImportError, match=r"model en_core_web_sm cannot be loaded \(.*no config.cfg'?\)\. Run"
    ) as found:
        gymnasium.make("steppo/WebShop-v0", nouns=source)
    assert '`python -m spacy download en_core_web_sm`, or choose the nouns "words"' in str(found.value)


def test_nouns_are_what_the_model_tags_as_such(tmp_path, monkeypatch):
    (tmp_path / "tiny_tags.py").write_text(
        "from types import SimpleNamespace\n\n\n"
        "def load(exclude):\n"
        "    assert not {'tagger', 'attribute_ruler', 'tok2vec'} & set(exclude)\n"
        "    tags = {'LAMP': 'NOUN', 'Brass': 'PROPN'}\n"
        "    return lambda text: [SimpleNamespace(text=word, pos_=tags.get(word, 'X')) for word in text.split()]\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert SpacyTagger("tiny_tags").nouns("Bright LAMP by Brass LAMP") == ("lamp", "brass", "lamp")


@pytest.mark.slow
def test_nouns_of_a_pipeline(tmp_path, monkeypatch):
    spacy = pytest.importorskip("spacy")
    pipeline = spacy.blank("en", meta={"name": "tiny", "version": "1.0"})
    ruler = pipeline.add_pipe("attribute_ruler")
    for word, tag in {"lamp": "NOUN", "brass": "PROPN", "bright": "ADJ"}.items():
        ruler.add([[{"LOWER": word}]], {"POS": tag})
    package = tmp_path / "tiny_model"
    package.mkdir()
    pipeline.to_disk(package / "en_tiny-1.0")
    (package / "meta.json").write_text((package / "en_tiny-1.0" / "meta.json").read_text(encoding="utf-8"))
    (package / "__init__.py").write_text(
        "from spacy.util import load_model_from_init_py\n\n\n"
        "def load(**settings):\n    return load_model_from_init_py(__file__, **settings)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    assert SpacyTagger("tiny_model").nouns("Bright LAMP by Brass, a lamp") == ("lamp", "brass", "lamp")
