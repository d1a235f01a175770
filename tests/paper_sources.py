"""A source of papers in memory, for tests of what is done with papers."""

from __future__ import annotations

from steppo_gym.envs.paper_search.papers import Paper, published_by


class ListedPapers:
    """Searches find the papers that have a word of the query in their title, in the order given.

    `cites` says whom each paper cites. `calls` counts what was asked for.
    """

    def __init__(self, papers, cites=()):
        self.papers = {paper.paper_id: paper for paper in papers}
        self.cites = dict(cites)
        self.calls = []

    def search(self, query, *, limit, until=""):
        self.calls.append(("search", query, limit, until))
        words = set(query.casefold().split())
        return self._kept(
            [paper for paper in self.papers.values() if words & set(paper.title.casefold().split())], limit, until
        )

    def paper(self, paper_id):
        return self.papers.get(paper_id)

    def citations(self, paper_id, *, limit, until=""):
        self.calls.append(("citations", paper_id, limit, until))
        return self._kept([self.papers[one] for one, cited in self.cites.items() if paper_id in cited], limit, until)

    def references(self, paper_id, *, limit, until=""):
        self.calls.append(("references", paper_id, limit, until))
        return self._kept([self.papers[cited] for cited in self.cites.get(paper_id, ())], limit, until)

    def close(self):
        pass

    def _kept(self, papers, limit, until):
        return [paper for paper in papers if published_by(paper.date, until)][:limit]


class FixedScores:
    """Relevance by id; what is not named has none."""

    name = "fixed"

    def __init__(self, **scores):
        self.by_id = scores
        self.asked = []

    def scores(self, query, papers):
        self.asked.append([paper.paper_id for paper in papers])
        return [self.by_id.get(paper.paper_id, 0.0) for paper in papers]

    def close(self):
        pass


def paper(paper_id, title="", abstract="An abstract.", date="2020-01-01"):
    return Paper(paper_id, title or paper_id, abstract, date)
