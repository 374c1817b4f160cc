"""The cheapest labels, against trying all of them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from bnncc.layouts.cuts import Tie, cheapest_labels

COSTS = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=7)


@st.composite
def problems(draw: st.DrawFn) -> tuple[list[tuple[int, int]], list[Tie]]:
    costs = draw(COSTS)
    index = st.integers(0, len(costs) - 1)
    readers = st.lists(index, min_size=1, max_size=4, unique=True).map(tuple)
    price = st.integers(0, 9)
    ties = st.builds(Tie, index, readers, price, price)
    return costs, draw(st.lists(ties, max_size=6))


def total(
    labels: Sequence[bool], costs: Sequence[tuple[int, int]], ties: Sequence[Tie]
) -> tuple[int, int]:
    """Return the cost, and how many labels are True."""
    paid = sum(cost[label] for cost, label in zip(costs, labels, strict=True))
    for tie in ties:
        apart = any(labels[reader] != labels[tie.maker] for reader in tie.readers)
        paid += apart * (tie.to_false if labels[tie.maker] else tie.to_true)
    return paid, sum(labels)


@given(problems())
def test_no_other_labels_are_cheaper(problem: tuple[list[tuple[int, int]], list[Tie]]) -> None:
    costs, ties = problem
    every = itertools.product((False, True), repeat=len(costs))
    best = min(total(labels, costs, ties) for labels in every)
    assert total(cheapest_labels(costs, ties), costs, ties) == best


def test_a_chain_that_pays_for_one_change() -> None:
    """Three layers gain from True, two before them lose more than a change costs."""
    costs = [(0, 9), (0, 9), (5, 1), (5, 1), (5, 1)]
    ties = [Tie(i, (i + 1,), 6, 6) for i in range(4)]
    assert cheapest_labels(costs, ties) == [False, False, True, True, True]


def test_a_tensor_of_several_readers_is_moved_once() -> None:
    """Each reader alone gains less than the move costs; together they gain more."""
    gaining = [(0, 99), (3, 0), (3, 0), (3, 0)]
    assert cheapest_labels(gaining, [Tie(0, (1, 2, 3), 8, 0)]) == [False, True, True, True]
    alone = [Tie(0, (i,), 8, 0) for i in (1, 2, 3)]
    assert cheapest_labels(gaining, alone) == [False, False, False, False]


def test_directions_have_prices_of_their_own() -> None:
    costs = [(4, 0), (0, 4)]
    assert cheapest_labels(costs, [Tie(0, (1,), 9, 3)]) == [True, False]
    assert cheapest_labels(costs, [Tie(0, (1,), 3, 9)]) == [False, False]
