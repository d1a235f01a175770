"""The official pages as text, node for node (WebShop's templates read by its `WebAgentTextEnv`).

A page is a sequence of nodes. `as_text` and `as_rich_text` write them as the two official observation modes. An empty
text leaves no node, and blanks alone leave what the official HTML parser makes of them.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence, Set
from typing import Literal

from steppo_gym.envs.webshop.store.catalogue import Product

_BLANKS = " \n\t\f\r"
"""What the official parser, Beautiful Soup, folds where a text has nothing else."""

NodeKind = Literal["plain", "button", "product", "option"]


@dataclasses.dataclass(frozen=True, slots=True)
class Node:
    """A visible text; `clicked` marks a chosen option or a visited product."""

    text: str
    kind: NodeKind = "plain"
    clicked: bool = False


def index_page(instruction: str) -> list[Node]:
    """The page with the search bar."""
    return _visible([Node("WebShop"), Node("Instruction: "), Node(instruction), Node("Search", "button")])


def results_page(
    instruction: str, products: Sequence[Product], page: int, total: int, visited: Set[str] = frozenset()
) -> list[Node]:
    """One page of results.

    Args:
        instruction: of the goal.
        products: those of this page, at most ten.
        page: counted from 1.
        total: results on all pages.
        visited: ids of the products opened in this session.
    """
    nodes = [*_head(instruction), Node(f"Page {page} (Total results: {total})")]
    if page > 1:
        nodes.append(Node("< Prev", "button"))
    nodes.append(Node("Next >", "button"))
    for product in products:
        nodes += [Node(product.asin, "product", product.asin in visited), Node(product.title), Node(product.price_tag)]
    return _visible(nodes)


def item_page(instruction: str, product: Product, chosen: Mapping[str, str]) -> list[Node]:
    """A product; `chosen` are the option values clicked so far, by name."""
    nodes = [*_head(instruction), Node("< Prev", "button")]
    # The official test for what is chosen: the address of the page has it, between quotation marks.
    address = json.dumps(dict(chosen))
    for name, values in product.options.items():
        nodes.append(Node(name))
        nodes += [Node(value, "option", f'"{value}"' in address) for value in values]
    nodes += [Node(product.title), Node(f"Price: {product.price_tag}"), Node("Rating: N.A.")]
    return _visible(nodes) + [Node(label, "button") for label in ("Description", "Features", "Reviews", "Buy Now")]


def description_page(instruction: str, product: Product) -> list[Node]:
    """The description of a product."""
    return _visible([*reviews_page(instruction), Node(product.description)])


def features_page(instruction: str, product: Product) -> list[Node]:
    """The features of a product; the official template puts a blank before each."""
    return _visible([*reviews_page(instruction), *(Node(f" {text}") for text in product.bullet_points)])


def reviews_page(instruction: str) -> list[Node]:
    """The reviews of any product: the official data has none."""
    return _visible([*_head(instruction), Node("< Prev", "button")])


def done_page(asin: str, chosen: Mapping[str, str]) -> list[Node]:
    """What was bought; the official page goes on with the reward, which is not for the agent to see."""
    texts = ["Thank you for shopping with us!", "Your code: ", "None", " (Paste it in your MTurk interface.)"]
    texts += ["Purchased", "asin", asin, "options", json.dumps(dict(chosen)), "attrs", "None", "category", "None"]
    texts += ["query", "None", "product category", "None", "Target", "asin", "options", "attrs", "price upper"]
    # The spelling is the page's own.
    texts += ["instuction text", "category", "product category", "query", "Goal ", "None"]
    return [Node(text) for text in texts]


def without_instruction(nodes: Sequence[Node]) -> Sequence[Node]:
    """A page from its first button on, which follows the instruction."""
    return nodes[next((place for place, node in enumerate(nodes) if node.kind == "button"), 0) :]


def as_text(nodes: Sequence[Node]) -> str:
    """Observation mode "text"."""
    return " [SEP] ".join(node.text.strip() for node in nodes)


def as_rich_text(nodes: Sequence[Node]) -> str:
    """Observation mode "text_rich"; chosen options are also named in front, the last on the page first."""
    chosen = [node.text for node in nodes if node.kind == "option" and node.clicked]
    return "".join([*(f"You have clicked {value}.\n" for value in reversed(chosen)), *map(_rich, nodes)])


def clickables(nodes: Sequence[Node]) -> list[str]:
    """What can be clicked, in the official order: buttons, products, options; each label once."""
    labels = [
        node.text if kind == "option" else node.text.lower()
        for kind in ("button", "product", "option")
        for node in nodes
        if node.kind == kind
    ]
    return list(dict.fromkeys(labels))


def _head(instruction: str) -> list[Node]:
    return [Node("Instruction:"), Node(instruction), Node("Back to Search", "button")]


def _visible(nodes: Sequence[Node]) -> list[Node]:
    """Nodes as the official parser sees them: none for an empty text or blanks with a line break, one blank for others.

    An option without a visible text cannot be clicked either: no click names an empty label.
    """
    return [
        dataclasses.replace(node, text=" ") if not node.text.strip(_BLANKS) else node
        for node in nodes
        if node.text.strip(_BLANKS) or (node.text and "\n" not in node.text)
    ]


def _rich(node: Node) -> str:
    if node.kind == "plain":
        return f"{node.text}\n"
    mark = "clicked button" if node.clicked else "button"
    before = {"button": "", "product": "\n", "option": "  "}[node.kind]
    return f"{before}[{mark}] {node.text} [{mark}_]\n"
