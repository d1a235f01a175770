"""Rows of the official files, whatever their layout, as one type.

    question = read_row({"_id": "5ab9..", "question": "..", "answer": "..", "context": [..], "supporting_facts": [..]})

Layouts are told apart by their keys: HotpotQA's and 2WikiMultihopQA's JSON, the same as the Hub has it, MuSiQue's JSON
lines, and files that hold questions only (`golden_answers`, or the `prompt` and `reward_model` of RL training sets).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from steppo_gym.envs.multihop_qa.scoring import Dataset
from steppo_gym.errors import DataError
from steppo_gym.quoting import valid_text, written_id

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Paragraph:
    """A paragraph that comes with a question."""

    title: str
    text: str
    """Empty where the title is all that is known of a supporting one."""


@dataclass(frozen=True)
class Question:
    """One task."""

    task_id: str
    text: str
    answers: tuple[str, ...]
    """The answer and its aliases, at least one."""
    kind: str
    """The data set's own type: "bridge", "comparison", "2hop", ...; empty if it has none."""
    supporting: tuple[Paragraph, ...] = ()
    """What the answer follows from, in the order of the hops where the file says it."""
    paragraphs: tuple[Paragraph, ...] = ()
    """All paragraphs of the row, distractors included."""
    source: str = ""
    """The data set that the row says it is of, as in files that merge several; empty if it says none."""

    def without_paragraphs(self) -> Question:
        """The same without what only the corpus needs."""
        return replace(self, paragraphs=())


def read_row(
    row: Any, aliases: Mapping[str, Sequence[str]] | None = None, dataset: Dataset | None = None
) -> Question | None:
    """One row, None if it is an unanswerable question of MuSiQue-Full.

    Args:
        row: as parsed from the file.
        aliases: further names by the id that 2WikiMultihopQA calls `answer_id`.
        dataset: refuses rows of others; None takes all.

    Raises:
        DataError: a key is missing, a value has another type, there is no answer, or it is a row of another data set.
    """
    if not isinstance(row, Mapping):
        raise DataError(f"Expected every row to be an object, found {type(row).__name__}.")
    # A table has every column in each row, null where it says nothing.
    row = {key: value for key, value in row.items() if value is not None}
    if dataset is not None:
        _check_layout(row, dataset)
    try:
        if not any(key in row for key in ("answer", "golden_answers", "answers", "reward_model")):
            raise DataError("The row has no answer. Those of the official test sets are not public; use another split.")
        question = _question(row, aliases or {})
        if question is not None and not question.text:
            raise DataError(f"Expected a question in every row, found none in {str(row)[:200]}.")
        return question
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise DataError(
            f"Expected a row as in the official files, found the keys {', '.join(map(str, row))} and could not read it "
            f"({type(error).__name__}: {error})."
        ) from error


def _check_layout(row: Row, dataset: Dataset) -> None:
    """Raise a DataError if a row is surely of another data set, whose answers are scored in another way."""
    is_musique = "paragraphs" in row
    if (is_musique or "context" in row) and is_musique != (dataset == "musique"):
        other = "MuSiQue" if is_musique else "HotpotQA and 2WikiMultihopQA"
        raise DataError(f"Expected a row of {dataset}, found one in the layout of {other}. Make their environment.")


def _question(row: Row, aliases: Mapping[str, Sequence[str]]) -> Question | None:
    if "paragraphs" in row:
        return _musique(row) if row.get("answerable", True) else None
    return _hotpot(row, aliases) if "context" in row else _question_only(row)


def _hotpot(row: Row, aliases: Mapping[str, Sequence[str]]) -> Question:
    """HotpotQA and 2WikiMultihopQA. HotpotQA's sentences begin with their blank, 2WikiMultihopQA's do not."""
    paragraphs = tuple(Paragraph(title, _joined(sentences)) for title, sentences in _contexts(row["context"]))
    titles = list(dict.fromkeys(_supporting_titles(row.get("supporting_facts") or ())))
    by_title = {paragraph.title: paragraph for paragraph in reversed(paragraphs)}
    return Question(
        task_id=_id(row["_id"] if "_id" in row else row["id"]),
        text=_text(row["question"]).strip(),
        answers=_answers(row, [row["answer"], *aliases.get(row.get("answer_id") or "", ())]),
        kind=_text(row.get("type") or ""),
        # The row may lack a paragraph that a fact names, as rows of HotpotQA's fullwiki file often do.
        supporting=tuple(by_title.get(title, Paragraph(title, "")) for title in titles),
        paragraphs=paragraphs,
    )


def _contexts(context: Any) -> list[tuple[str, Sequence[str]]]:
    if isinstance(context, Mapping):
        pairs = list(zip(texts(context["title"]), context["sentences"], strict=True))
    else:
        pairs = [(title, sentences) for title, sentences in context]
    return [(_text(title), texts(sentences)) for title, sentences in pairs]


def _supporting_titles(facts: Any) -> list[str]:
    return texts(facts["title"]) if isinstance(facts, Mapping) else [_text(fact[0]) for fact in facts]


def _joined(sentences: Sequence[str]) -> str:
    text = ""
    for sentence in sentences:
        blank = "" if not text or text[-1].isspace() or sentence[:1].isspace() else " "
        text += blank + sentence
    return text.strip()


def _musique(row: Row) -> Question:
    paragraphs = tuple(Paragraph(_text(p["title"]), _text(p["paragraph_text"]).strip()) for p in row["paragraphs"])
    order = [step["paragraph_support_idx"] for step in row.get("question_decomposition") or ()]
    positions = {p["idx"]: i for i, p in enumerate(row["paragraphs"])}
    marked = [p["idx"] for p in row["paragraphs"] if p["is_supporting"]]
    supporting = dict.fromkeys(idx for idx in (*order, *marked) if idx in marked)
    task_id = _id(row["id"])
    return Question(
        task_id=task_id,
        text=_text(row["question"]).strip(),
        answers=_answers(row, [row["answer"], *texts(row.get("answer_aliases") or [])]),
        kind=hops[0] if (hops := re.match(r"\dhop", task_id)) else "",
        supporting=tuple(paragraphs[positions[idx]] for idx in supporting),
        paragraphs=paragraphs,
    )


def _question_only(row: Row) -> Question:
    if "reward_model" in row:
        gold, extra = row["reward_model"]["ground_truth"], row.get("extra_info") or {}
        index, split = extra.get("index"), extra.get("split")
        if type(index) is int and isinstance(split, str):
            # Numbers begin anew in the file of each split.
            index = f"{split}_{index}"
        ids = (row.get("id"), extra.get("question_id"), index)
        task_id = next((one for one in ids if one not in (None, "")), None)
        # A prompt may have instructions in front of the question.
        text = row.get("question") or extra.get("question") or row["prompt"][-1]["content"]
        kind = extra.get("type") or ""
    else:
        gold = next(row[key] for key in ("golden_answers", "answers", "answer") if key in row)
        task_id, text, kind = row["_id"] if "_id" in row else row["id"], row["question"], row.get("type") or ""
    if isinstance(gold, Mapping):
        gold = gold["target"]
    if type(task_id) not in (str, int):
        raise TypeError(f"expected a text or a whole number as id, found {task_id!r:.80}")
    answers = [gold] if isinstance(gold, str) else list(gold)
    source = _text(row.get("data_source") or "")
    return Question(_id(str(task_id)), _text(text).strip(), _answers(row, answers), _text(kind), source=source)


def _answers(row: Row, answers: Sequence[Any]) -> tuple[str, ...]:
    unique = tuple(dict.fromkeys(map(_text, answers)))
    if not any(answer.strip() for answer in unique):
        raise DataError(f"Expected an answer in every row, found none in {str(row)[:200]}.")
    return unique


def _id(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"expected a text as id, found {type(value).__name__}")
    return written_id(value)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"expected text, found {type(value).__name__}")
    return valid_text(value)


def texts(value: Any) -> list[str]:
    """A list of texts as it stands in a file.

    Raises:
        TypeError: it is none; a single text is not taken for a list of its letters.
    """
    # Arrays of parquet files come as lists too.
    if not isinstance(value, list | tuple):
        raise TypeError(f"expected a list of texts, found {type(value).__name__}")
    return [_text(item) for item in value]
