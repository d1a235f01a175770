"""What the Semantic Scholar Graph API would answer if it had the papers of a corpus.

    GET  /paper/search?query=&fields=&offset=&limit=[&publicationDateOrYear=:2023-05-01]
    GET  /paper/{id}?fields=
    GET  /paper/{id}/citations?fields=&offset=&limit=      and /references
    POST /paper/batch?fields=                              {"ids": [...]}

Limits, defaults and the missing "data" of a search without hits are those of the official server; so are the statuses
400 and 404. A paper of which only the month is known has a year and no day. What the corpus does not know is null;
parameters that this server does not have are refused rather than passed over. The "total" of a search counts hits up to
the first after the page.

    answer(corpus, "/paper/search?query=moon&limit=1", b"")
    # {"total": 2, "offset": 0, "next": 1, "data": [{"paperId": "17", "title": "Apollo"}]}
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from steppo_gym.envs.paper_search.corpus.corpus import PaperCorpus
from steppo_gym.envs.paper_search.papers import Paper
from steppo_gym.envs.paper_search.semantic_scholar.records import (
    BATCH,
    LIST_DEPTH,
    LIST_PAGE,
    SEARCH_DEPTH,
    SEARCH_PAGE,
    Page,
    arxiv_month,
)
from steppo_gym.storage.http_server import RefusedError

DEFAULT_LIMIT = 100
DEFAULT_FIELDS = ("title",)

_KNOWN: dict[str, Callable[[PaperCorpus, Paper], object]] = {
    "paperId": lambda _, paper: paper.paper_id,
    "externalIds": lambda _, paper: {"ArXiv": paper.paper_id} if arxiv_month(paper.paper_id) else {},
    "title": lambda _, paper: paper.title,
    "abstract": lambda _, paper: paper.abstract or None,
    "year": lambda _, paper: int(paper.date[:4]) if paper.date else None,
    "publicationDate": lambda _, paper: paper.date if len(paper.date) == len("YYYY-MM-DD") else None,
    "authors": lambda _, paper: [{"authorId": None, "name": name} for name in paper.authors],
    "citationCount": lambda _, paper: paper.num_citations,
    "referenceCount": lambda corpus, paper: corpus.num_references(paper.paper_id),
}
"""Fields of papers that a corpus knows."""
_NULL = (
    "corpusId",
    "url",
    "venue",
    "publicationVenue",
    "influentialCitationCount",
    "isOpenAccess",
    "openAccessPdf",
    "fieldsOfStudy",
    "s2FieldsOfStudy",
    "publicationTypes",
    "journal",
)
"""Fields of papers that it does not know."""
_LINK: dict[str, object] = {"contexts": [], "intents": [], "contextsWithIntent": [], "isInfluential": False}
"""Fields of citations, and what is known of them."""
_ENDS = {"citations": "citingPaper", "references": "citedPaper"}
_UNTIL = re.compile(r":(\d{4}-\d{2}-\d{2})")
_ARXIV = re.compile("arxiv:", re.IGNORECASE)


def path_parts(target: str) -> list[str]:
    """The parts of a request's path, unquoted; a quoted slash does not separate."""
    parts = [unquote(part) for part in urlsplit(target).path.split("/") if part]
    return parts[2:] if parts[:2] == ["graph", "v1"] else parts


def answer(corpus: PaperCorpus, target: str, body: bytes) -> object:
    """The JSON of the answer to a request.

    Args:
        corpus: the papers.
        target: path and query of the request.
        body: that of a batch request.

    Raises:
        RefusedError: the paper is unknown, or something is wrong with the request.
    """
    parameters = _read_parameters(urlsplit(target).query)
    match path_parts(target):
        case ["paper", "search"]:
            return _search(corpus, parameters)
        case ["paper", "batch"]:
            return _batch(corpus, parameters, body)
        case ["paper", *words, ("citations" | "references") as which] if words:
            return _neighbours(corpus, parameters, _known_id(corpus, "/".join(words)), which)
        case ["paper", *words] if words:
            _check_names(parameters, "fields")
            return _record(corpus, _known_id(corpus, "/".join(words)), _fields(parameters))
        case _:
            raise RefusedError(HTTPStatus.NOT_FOUND, "Expected /paper/search, /paper/batch or /paper/{id}.")


def _search(corpus: PaperCorpus, parameters: dict[str, str]) -> object:
    _check_names(parameters, "query", "fields", "offset", "limit", "publicationDateOrYear")
    query, dates = parameters.get("query", ""), parameters.get("publicationDateOrYear", "")
    if not query.strip():
        raise _bad("Expected a query.")
    until = _UNTIL.fullmatch(dates)
    if dates and not until:
        raise _bad(f"Expected publicationDateOrYear as :YYYY-MM-DD, found {dates!r:.80}.")
    fields, (offset, limit) = _fields(parameters), _window(parameters, SEARCH_PAGE, SEARCH_DEPTH)
    papers = corpus.search(query, limit=offset + limit + 1, until=until[1] if until else "")
    return _page(papers, offset, limit, lambda paper: _record(corpus, paper, fields), total=len(papers)).message()


def _neighbours(corpus: PaperCorpus, parameters: dict[str, str], paper: Paper, which: str) -> object:
    _check_names(parameters, "fields", "offset", "limit")
    fields, (offset, limit) = _fields(parameters, tuple(_LINK)), _window(parameters, LIST_PAGE, LIST_DEPTH)
    link = {name: _LINK[name] for name in fields if name in _LINK}
    of_paper = [name for name in fields if name not in _LINK]
    find = corpus.citations if which == "citations" else corpus.references
    papers = find(paper.paper_id, limit=offset + limit + 1)
    return _page(
        papers, offset, limit, lambda other: {**link, _ENDS[which]: _record(corpus, other, of_paper)}
    ).message()


def _batch(corpus: PaperCorpus, parameters: dict[str, str], body: bytes) -> object:
    _check_names(parameters, "fields")
    fields = _fields(parameters)
    try:
        message = json.loads(body)
    except (ValueError, RecursionError):
        message = None
    ids = message.get("ids") if isinstance(message, dict) else None
    if not isinstance(ids, list) or not ids or not all(isinstance(paper_id, str) for paper_id in ids):
        raise _bad('Expected a JSON object with ids in "ids".')
    if len(ids) > BATCH:
        raise _bad(f"Expected at most {BATCH} ids, found {len(ids)}.")
    papers = (_find(corpus, paper_id) for paper_id in ids)
    return [_record(corpus, paper, fields) if paper else None for paper in papers]


def _page(
    papers: list[Paper], offset: int, limit: int, record: Callable[[Paper], dict[str, Any]], total: int | None = None
) -> Page:
    """A page of papers that were asked for up to one after it."""
    end = offset + limit
    records = tuple(map(record, papers[offset:end]))
    return Page(records, offset, end if len(papers) > end else None, total)


def _record(corpus: PaperCorpus, paper: Paper, fields: Sequence[str]) -> dict[str, Any]:
    names = dict.fromkeys(("paperId", *fields))
    return {name: _KNOWN[name](corpus, paper) if name in _KNOWN else None for name in names}


def _known_id(corpus: PaperCorpus, paper_id: str) -> Paper:
    if paper := _find(corpus, paper_id):
        return paper
    raise RefusedError(HTTPStatus.NOT_FOUND, f"Paper with id {paper_id:.200} not found")


def _find(corpus: PaperCorpus, paper_id: str) -> Paper | None:
    return corpus.paper(_ARXIV.sub("", paper_id, count=1) if _ARXIV.match(paper_id) else paper_id)


def _read_parameters(query: str) -> dict[str, str]:
    try:
        return dict(parse_qsl(query, keep_blank_values=True, max_num_fields=20))
    except ValueError:
        raise _bad("Expected at most 20 parameters.") from None


def _check_names(parameters: dict[str, str], *names: str) -> None:
    if unknown := sorted(set(parameters) - set(names)):
        raise _bad(f"Expected no parameters but {', '.join(names)}, found {', '.join(unknown)[:200]}.")


def _fields(parameters: dict[str, str], more: tuple[str, ...] = ()) -> list[str]:
    """The fields that are asked for; of "authors.name" and the like the whole field."""
    wanted = parameters.get("fields")
    names: list[str] = (
        list(DEFAULT_FIELDS) if wanted is None else [name.partition(".")[0] for name in wanted.split(",")]
    )
    if unknown := [name for name in names if name not in (*_KNOWN, *_NULL, *more)]:
        raise _bad(f"Unrecognized or unsupported fields: [{', '.join(unknown)[:200]}]")
    return names


def _window(parameters: dict[str, str], max_limit: int, depth: int) -> tuple[int, int]:
    """Offset and limit."""
    default = str(min(DEFAULT_LIMIT, max_limit))
    texts = parameters.get("offset", "0"), parameters.get("limit", default)
    # The number of digits first: Python refuses to read numbers of many thousands.
    if not all(text.isascii() and text.isdecimal() and len(text) < 9 for text in texts):
        raise _bad(f"Expected offset and limit as numbers, found {texts[0]!r:.40} and {texts[1]!r:.40}.")
    offset, limit = map(int, texts)
    if not 1 <= limit <= max_limit or offset + limit > depth:
        raise _bad(
            f"Expected limit from 1 to {max_limit} and offset + limit at most {depth}, found {limit} and {offset}."
        )
    return offset, limit


def _bad(message: str) -> RefusedError:
    return RefusedError(HTTPStatus.BAD_REQUEST, message)
