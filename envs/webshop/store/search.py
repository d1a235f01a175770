"""Search in a shop, with the rules of the official one (`get_top_n_product_from_keywords` of princeton-nlp/WebShop).

    open_search(store)(["slim", "fit", "hoodie"], rng)

Words are searched for with BM25 (k1 = 0.9, b = 0.4) after English analysis, as Pyserini does by default. A search that
starts with a special word gives random products ("<r>"), or those with an attribute ("<a> slim fit"), of a category
("<c> fashion") or of a query ("<q> hoodie"). It differs from the official shop in these things:

- Lucene rounds the lengths of documents to one byte and stems with Porter's first algorithm, where this has the second,
  so near ties can be in another order. Exact ties are in the order of the products' file.
- "<a>", "<c>" and "<q>" give 50 products at most as well, the first ones of the file; a full shop has hundreds of
  thousands.
- What makes the official server fail finds nothing ("<c>" alone), or all there is ("<r>" in a shop of less than 50).
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import lru_cache

from steppo_gym.envs.webshop.store.products import ProductStore
from steppo_gym.retrieval import Retriever, open_retriever_streamed
from steppo_gym.retrieval.retriever import MAX_QUERY_CHARACTERS

NUM_RESULTS = 50
"""Most products that a search finds."""
KEPT_SEARCHES = 256
"""Results that stay in memory; going from page to page searches again."""


class ProductSearch:
    """Searches one shop; safe in several threads.

    Args:
        store: the products.
        retriever: finds them; ids are asins.
    """

    def __init__(self, store: ProductStore, retriever: Retriever) -> None:
        self._store, self._retriever = store, retriever
        self._ranked = lru_cache(KEPT_SEARCHES)(self._rank)

    def __call__(self, keywords: Sequence[str], rng: random.Random) -> list[str]:
        """Asins of at most `NUM_RESULTS` products, the best first; any words may be searched for.

        Args:
            keywords: as `text.split(" ")` gives them.
            rng: draws for "<r>" alone.
        """
        store, rest = self._store, " ".join(keywords[1:]).strip()
        match keywords[0] if keywords else "":
            case "<r>":
                drawn = rng.sample(range(store.num_products), min(NUM_RESULTS, store.num_products))
                return [store.asin_at(position) for position in drawn]
            case "<a>":
                return store.asins_with_attribute(rest, NUM_RESULTS)
            case "<c>":
                # The official server looks at one word; no category has more.
                return store.asins_of_category("".join(keywords[1:2]).strip(), NUM_RESULTS)
            case "<q>":
                return store.asins_of_query(rest, NUM_RESULTS)
            case _:
                return list(self._ranked(" ".join(keywords)[:MAX_QUERY_CHARACTERS]))

    def _rank(self, text: str) -> tuple[str, ...]:
        (hits,) = self._retriever.search([text], NUM_RESULTS)
        return tuple(hit.passage.id for hit in hits)


def open_search(store: ProductStore) -> ProductSearch:
    """Search over a store, of which the index is built once and cached.

    Raises:
        DataError: the index is damaged.
    """
    retriever = open_retriever_streamed(store.passages, corpus=store.corpus, num_passages=store.num_products)
    return ProductSearch(store, retriever)
