"""Where questions come from: the generator, or official files read unchanged.

    ProceduralQuestions("hotpotqa", "train").load("hotpotqa/train/00017")
    QuestionFiles("hotpotqa", "~/hotpotqa", "validation").load("5a8b57f25542995d1e6f1371")

Both know the corpus that belongs to a question: its encyclopaedia, or the paragraphs of all rows of the file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from steppo_gym.envs.multihop_qa.built_in.encyclopaedia import KEPT_WORLDS, encyclopaedia
from steppo_gym.envs.multihop_qa.built_in.generate import SPLIT_SIZES, generate_row, task_ids, world_number
from steppo_gym.envs.multihop_qa.files import find_files, read_aliases, read_rows
from steppo_gym.envs.multihop_qa.questions import Paragraph, Question, read_row
from steppo_gym.envs.multihop_qa.scoring import Dataset
from steppo_gym.errors import DataError, UnknownTaskError
from steppo_gym.keywords import check_split, path_of, unknown_task_message
from steppo_gym.retrieval import Passage, Retriever, open_retriever_for
from steppo_gym.storage.file_stamps import FileStamp, file_stamps


class ProceduralQuestions:
    """The generator's questions. Ids are `<data set>/<split>/<number>`.

    Args:
        dataset: whose mix of questions.
        split: a key of `SPLIT_SIZES`.
        engine: that of the retriever, see `steppo_gym.retrieval.engine`.

    Raises:
        UnknownTaskError: an unknown split.
    """

    def __init__(self, dataset: Dataset, split: str, engine: str | None = None) -> None:
        self.dataset: Dataset = dataset
        self._engine = engine
        self.split = split
        self.task_ids: Sequence[str] = task_ids(dataset, split)
        self._indices = {task_id: index for index, task_id in enumerate(self.task_ids)}

    def has(self, task_id: str) -> bool:
        """Whether there is a question of this id."""
        return task_id in self._indices

    def load(self, task_id: str) -> Question:
        """Generate a question.

        Raises:
            UnknownTaskError: no such id.
        """
        question = read_row(generate_row(self.dataset, self.split, self._index(task_id)))
        assert question is not None, "generated questions have answers"
        return question

    def retriever(self, task_id: str) -> Retriever:
        """BM25 over the question's encyclopaedia.

        Raises:
            UnknownTaskError: no such id.
        """
        number = world_number(self.dataset, self.split, self._index(task_id))
        return _world_retriever(self.split, number, self._engine)

    def _index(self, task_id: str) -> int:
        if task_id not in self._indices:
            raise UnknownTaskError(unknown_task_message(task_id, self.task_ids))
        return self._indices[task_id]


class QuestionFiles:
    """Questions of official files. Ids are the files' own.

    Args:
        dataset: which data set it is.
        data: a file, or the folder that holds the official files (see `find_files`). `~` and variables are expanded.
        split: which of the files of a folder; a single file is what it is.
        engine: that of the retriever, see `steppo_gym.retrieval.engine`.

    Raises:
        DataError: there is no such file, or it is damaged.
        UnknownTaskError: an unknown split.
    """

    def __init__(self, dataset: Dataset, data: str | Path, split: str, engine: str | None = None) -> None:
        check_split(split, SPLIT_SIZES)
        self._made_with = (dataset, path_of(data), split, engine)
        self.stamps = file_stamps(find_files(dataset, data, split))
        """Of the files."""
        self._set = _open_files(dataset, self.stamps, engine)
        self.task_ids: Sequence[str] = tuple(self._set.questions)

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy, and another process, opens the same files."""
        return QuestionFiles, self._made_with

    def has(self, task_id: str) -> bool:
        """Whether there is a question of this id."""
        return task_id in self._set.questions

    def load(self, task_id: str) -> Question:
        """Look up a question.

        Raises:
            UnknownTaskError: no such id.
        """
        if task_id not in self._set.questions:
            raise UnknownTaskError(unknown_task_message(task_id, self.task_ids))
        return self._set.questions[task_id]

    def require_corpus(self) -> None:
        """Raise a DataError where the files hold questions only."""
        self._set.require_corpus()

    def retriever(self, task_id: str) -> Retriever:
        """BM25 over the paragraphs of all rows, each once.

        Raises:
            DataError: the files hold questions only.
        """
        del task_id
        return self._set.retriever()


Questions = ProceduralQuestions | QuestionFiles
"""The questions of a split, and what can be searched to answer them."""


class QuestionSet:
    """The rows of files in memory, and a retriever over their paragraphs that is opened when it is asked for.

    Args:
        dataset: whose questions they are.
        paths: read one after the other.
        engine: that of the retriever.

    Raises:
        DataError: a file is missing, damaged or of another data set, an id comes twice, or there is no question.
    """

    def __init__(self, dataset: Dataset, paths: Sequence[Path], engine: str | None = None) -> None:
        self._source = ", ".join(map(str, paths))
        self._retriever: Retriever | None = None
        self._engine = engine
        found: dict[tuple[str, str], Question] = {}
        paragraphs: dict[Paragraph, None] = {}
        aliases = read_aliases(paths[0].parent)
        for path in paths:
            for number, row in enumerate(read_rows(path)):
                try:
                    question = read_row(row, aliases, dataset)
                except DataError as error:
                    raise DataError(f"Row {number} of {path}: {error}") from error
                if question is None:
                    continue
                if (question.source, question.task_id) in found:
                    raise DataError(f"Expected every id once in {self._source}, found {question.task_id!r} again.")
                paragraphs.update(dict.fromkeys(question.paragraphs))
                # Distractors are needed in the corpus only; full training sets are large.
                found[question.source, question.task_id] = question.without_paragraphs()
        if not found:
            raise DataError(f"Expected questions in {self._source}, found none. Is it the right file?")
        self.questions = _by_id(found)
        self._paragraphs = tuple(paragraphs)

    def require_corpus(self) -> None:
        """See `QuestionFiles.require_corpus`."""
        if not self._paragraphs and self._retriever is None:
            raise DataError(
                f"{self._source} holds questions without paragraphs, so there is nothing to search. Pass a corpus "
                "file or the address of a search server as retriever=."
            )

    def retriever(self) -> Retriever:
        """See `QuestionFiles.retriever`."""
        if self._retriever is None:
            self.require_corpus()
            self._retriever = open_retriever_for(
                [Passage(str(i), paragraph.title, paragraph.text) for i, paragraph in enumerate(self._paragraphs)],
                engine=self._engine,
            )
            # The index has them now.
            self._paragraphs = ()
        return self._retriever


def _by_id(found: Mapping[tuple[str, str], Question]) -> dict[str, Question]:
    """Questions by id. A file of several data sets, such as Search-R1's, has the id "train_0" in each of them."""
    merged = len({source for source, _ in found}) > 1
    return {f"{source}/{task_id}" if merged else task_id: question for (source, task_id), question in found.items()}


@lru_cache(maxsize=4)
def _open_files(dataset: Dataset, stamps: tuple[FileStamp, ...], engine: str | None) -> QuestionSet:
    """One copy for all environments of a process; a file that has changed is read again."""
    return QuestionSet(dataset, [path for path, _, _ in stamps], engine)


@lru_cache(maxsize=KEPT_WORLDS)
def _world_retriever(split: str, number: int, engine: str | None) -> Retriever:
    world = encyclopaedia(split, number)
    return open_retriever_for(
        [Passage(str(i), title, "".join(world.sentences(title))) for i, title in enumerate(world.things)],
        engine=engine,
        progress=False,
    )
