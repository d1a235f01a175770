"""One id for one paper, in whatever form files and servers name it."""

from __future__ import annotations

import re

from steppo_gym.envs.paper_search.papers import arxiv_id_without_version

_ARXIV_ADDRESS = re.compile(
    r"(?:https?://(?:www\.)?arxiv\.org/(?:abs|pdf)/|arxiv:)(?P<id>.+?)(?:\.pdf)?", re.IGNORECASE
)


def canonical_id(text: str) -> str:
    """The arXiv id without version if the text is one or an address of arXiv, else the text without outer blanks.

    >>> canonical_id("2401.01234v2"), canonical_id("http://arxiv.org/pdf/cs/0112017v1.pdf"), canonical_id("PMID:1")
    ('2401.01234', 'cs/0112017', 'PMID:1')
    """
    text = text.strip()
    address = _ARXIV_ADDRESS.fullmatch(text)
    return arxiv_id_without_version(address["id"] if address else text)
