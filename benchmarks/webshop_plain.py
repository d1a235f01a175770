"""A plain web shop in the official manner, to compare speeds with: nothing here is used by the environment.

Like the original it holds all products in lists, scores every document with rank_bm25 for each search, makes each page
with a Jinja template, reads its text back with Beautiful Soup, parses it once more for what can be clicked, and adds up
the weights of all goals at each reset. The reward is the environment's own.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from steppo_gym.envs.webshop.nouns import NounTagger
from steppo_gym.envs.webshop.reward import score
from steppo_gym.envs.webshop.store.catalogue import Goal, Product

_TEMPLATE = """\
<!DOCTYPE html><html><head><title>Shop</title></head><body>
{% macro button(text) %}<form method="post"><button type="submit" class="btn">{{ text }}</button></form>{% endmacro %}
{% if kind == "index" %}<h3>WebShop</h3>{% endif %}
<h4>Instruction:<br>{{ instruction }}</h4>
{% if kind == "index" %}<input id="search_input">{{ button("Search") }}
{% else %}{{ button("Back to Search") }}{% endif %}
{% if kind == "results" %}
<h3>Page {{ number }} (Total results: {{ total }})</h3>
{% if number > 1 %}{{ button("< Prev") }}{% endif %}{{ button("Next >") }}
{% for product in products %}<div class="row"><h4><a class="product-link">{{ product.asin }}</a></h4>
<h4>{{ product.title }}</h4><h5>{{ product.price_tag }}</h5></div>{% endfor %}
{% elif kind == "item" %}{{ button("< Prev") }}
{% for name, values in product.options.items() %}<h4>{{ name }}</h4>
{% for value in values %}<input type="radio" name="{{ name }}" value="{{ value }}">
<label>{{ value }}</label>{% endfor %}{% endfor %}
<h2>{{ product.title }}</h2><h4>Price: {{ product.price_tag }}</h4><h4>Rating: N.A.</h4>
{% for text in ("Description", "Features", "Reviews", "Buy Now") %}{{ button(text) }}{% endfor %}
{% elif kind == "done" %}<h1>Thank you for shopping with us!</h1>
{% else %}{{ button("< Prev") }}{% for text in texts %}<p>{{ text }}</p>{% endfor %}{% endif %}
</body></html>"""


class PlainShop:
    """One shop with one customer.

    Raises:
        ImportError: a package of the comparison is missing; the message says how to install it.
    """

    def __init__(self, products: Sequence[Product], goals: Sequence[Goal], tagger: NounTagger) -> None:
        try:
            import bs4  # pyright: ignore[reportMissingImports]
            import jinja2
            from rank_bm25 import BM25Okapi  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            message = "The plain shop needs extra packages. Run `pip install beautifulsoup4 jinja2 rank-bm25`."
            raise ImportError(message) from error
        self._bs4 = bs4
        self._template = jinja2.Environment(autoescape=True).from_string(_TEMPLATE)
        self.products = list(products)
        self.by_asin = {product.asin: product for product in products}
        self.goals, self.tagger = goals, tagger
        self.ranker = BM25Okapi([_document(product).split() for product in products], k1=0.9, b=0.4)

    def reset(self, number: int) -> str:
        """Start with this goal, after drawing one as the original does."""
        total, cumulative = 0.0, []
        for _ in self.goals:
            total += 1.0  # what human goals weigh there
            cumulative.append(total)
        random.Random(number).choices(range(len(self.goals)), cum_weights=cumulative)
        self.goal = self.goals[number]
        self.kind, self.number, self.found, self.chosen = "index", 1, [], {}
        return self._show()

    def step(self, command: str) -> tuple[str, float]:
        """Do an official action that can be done; observation and score."""
        name, _, argument = command[:-1].partition("[")
        if name == "search":
            self.words, self.number = argument.split(), 1
            self._search()
        elif argument == "buy now":
            self.kind = "done"
        elif argument in ("next >", "< prev") and self.kind == "results":
            self.number += 1 if argument == "next >" else -1
            self._search()
        elif argument == "< prev" and self.kind == "item":
            self._search()
        elif argument == "< prev":
            self.kind = "item"
        elif argument in ("description", "features", "reviews"):
            self.kind = argument
        elif self.kind == "results":
            self.kind, self.product = "item", self.by_asin[argument.upper()]
        else:
            self.chosen[next(name for name, values in self.product.options.items() if argument in values)] = argument
        return self._show(), self._score() if self.kind == "done" else 0.0

    def _search(self) -> None:
        scores = self.ranker.get_scores(self.words)
        best = sorted(range(len(scores)), key=lambda index: -scores[index])[:50]
        self.kind, self.chosen = "results", {}
        self.found = [self.products[index] for index in best]

    def _show(self) -> str:
        product = self.__dict__.get("product")
        texts = {"description": [product.description], "features": product.bullet_points} if product else {}
        page = self._template.render(
            kind=self.kind,
            instruction=self.goal.instruction,
            number=self.number,
            total=len(self.found),
            products=self.found[(self.number - 1) * 10 : self.number * 10],
            product=product,
            texts=texts.get(self.kind, ()),
        )
        parsed = self._bs4.BeautifulSoup(page, "html.parser")
        visible = [str(node).strip() for node in parsed.find_all(string=True) if self._is_visible(node)]
        self.clickable = self._clickables(page)
        return " [SEP] ".join(text for text in visible if text)

    def _is_visible(self, node: Any) -> bool:
        hidden = ("style", "script", "head", "title", "meta", "[document]")
        return node.parent.name not in hidden and not isinstance(node, (self._bs4.Comment, self._bs4.Doctype))

    def _clickables(self, page: str) -> list[str]:
        parsed = self._bs4.BeautifulSoup(page, "html.parser")
        buttons = [*parsed.find_all(class_="btn"), *parsed.find_all(class_="product-link")]
        options = parsed.select('input[type="radio"]')
        return [*(button.get_text().lower() for button in buttons), *(str(option.get("value")) for option in options)]

    def _score(self) -> float:
        product = self.product
        return score(self.goal, product=product, chosen=self.chosen, price=product.prices[0], tagger=self.tagger).total


def _document(product: Product) -> str:
    options = ", and ".join(f"{name}: {', '.join(values)}" for name, values in product.options.items())
    return " ".join([product.title, product.description, *product.bullet_points[:1], options]).lower()
