"""Placement: no byte belongs to two live blocks, and networks come within 5 % of the bound."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bnncc.backend.placement import Life, largest_live, place


def lives(most: int, steps: int = 30) -> st.SearchStrategy[list[Life]]:
    """Blocks of 0 to 320 bytes in steps of 8, alive during any part of `steps` steps."""
    times = st.tuples(st.integers(0, steps - 1), st.integers(0, steps - 1)).map(sorted)
    sizes = st.integers(0, 40).map(lambda n: 8 * n)
    one = st.builds(lambda size, time: Life(size, *time), sizes, times)
    return st.lists(one, max_size=most)


def top(blocks: Sequence[Life], offsets: Sequence[int]) -> int:
    return max((o + b.size for o, b in zip(offsets, blocks, strict=True)), default=0)


def ratio(blocks: Sequence[Life]) -> float:
    """Place the blocks, check that the placement is valid, and return it by the bound."""
    offsets = place(blocks)
    assert len(offsets) == len(blocks)
    assert all(offset >= 0 and offset % 8 == 0 for offset in offsets)
    for (a, start), (b, other) in itertools.combinations(zip(blocks, offsets, strict=True), 2):
        apart_in_time = a.dies < b.born or b.dies < a.born
        apart_in_space = start + a.size <= other or other + b.size <= start
        assert apart_in_time or apart_in_space, (a, start, b, other)
    bound = max(
        (sum(b.size for b in blocks if b.born <= t <= b.dies) for t in {b.born for b in blocks}),
        default=0,
    )
    assert largest_live(blocks) == bound <= top(blocks, offsets)
    return top(blocks, offsets) / max(bound, 1)


# --- Any blocks ---------------------------------------------------------------------------------


@given(lives(40))
def test_live_blocks_share_no_byte_and_keep_their_alignment(blocks: list[Life]) -> None:
    ratio(blocks)


@given(lives(5, steps=6))
def test_few_blocks_are_placed_as_well_as_can_be(blocks: list[Life]) -> None:
    """Against every order: placing each block as low as it goes reaches the optimum in one."""
    found = top(blocks, place(blocks))
    if found > largest_live(blocks):
        assert found == min(top(blocks, _lowest(blocks, o)) for o in _orders(len(blocks)))


def _orders(count: int) -> itertools.permutations[int]:
    return itertools.permutations(range(count))


def _lowest(blocks: Sequence[Life], order: Sequence[int]) -> list[int]:
    """Place block by block at the first byte, counted up by 8, where it meets no other."""
    offsets: dict[int, int] = {}
    for i in order:
        offset = 0
        while any(
            not (blocks[j].dies < blocks[i].born or blocks[i].dies < blocks[j].born)
            and not (offset + blocks[i].size <= start or start + blocks[j].size <= offset)
            for j, start in offsets.items()
        ):
            offset += 8
        offsets[i] = offset
    return [offsets[i] for i in range(len(blocks))]


def test_nothing_to_place() -> None:
    assert place([]) == []
    assert largest_live([]) == 0


def test_blocks_that_never_meet_lie_on_top_of_each_other() -> None:
    assert place([Life(8, 0, 1), Life(24, 2, 2), Life(16, 3, 9)]) == [0, 0, 0]


def test_the_last_step_of_one_block_is_not_free_for_the_next() -> None:
    assert sorted(place([Life(8, 0, 1), Life(8, 1, 2)])) == [0, 8]


def test_the_search_reaches_a_bound_that_no_simple_order_does() -> None:
    """By size, by size times lifetime and at both ends, these take 6, 19 and 27 % more."""
    blocks = _irregular(random.Random(57), 20)
    assert top(blocks, place(blocks)) == largest_live(blocks)


def test_equal_blocks_get_equal_offsets_and_leave_the_shared_random_numbers_alone() -> None:
    blocks = _irregular(random.Random(5), 60)
    random.seed(1)
    first, state = place(blocks), random.getstate()
    random.seed(2)
    assert place(blocks) == first
    random.seed(1)
    assert random.getstate() == state


# --- Chains: exact ------------------------------------------------------------------------------


@given(st.lists(st.integers(1, 1000).map(lambda n: 8 * n), min_size=1, max_size=200))
def test_chains_take_their_two_largest_neighbours(sizes: list[int]) -> None:
    blocks = [Life(size, step, step + 1) for step, size in enumerate(sizes)]
    assert top(blocks, place(blocks)) == max(a + b for a, b in pairwise([*sizes, 0]))


def test_long_chains_of_patterns_that_mislead_simple_orders() -> None:
    """Each pattern defeats an order from below; the search without the two ends takes 25 % more."""
    sizes = [8 * size for size in [64, 32, 32, 64, 29, 38, 58, 38] * 50]
    blocks = [Life(size, step, step + 1) for step, size in enumerate(sizes)]
    assert top(blocks, place(blocks)) == 8 * (64 + 38)


# --- Families, each over many seeds ---------------------------------------------------------------


def _fork_and_join(chance: random.Random, count: int) -> list[Life]:
    """A network's shape: most results are read by the next layer, the others up to 8 later."""
    return [
        Life(
            8 * chance.choice([1, 2, 4, 8, 16]) * chance.choice([1, 32, 49, 64]),
            step,
            step + (1 if chance.random() < 0.7 else chance.randint(2, 8)),
        )
        for step in range(count)
    ]


def _hourglass(chance: random.Random, count: int) -> list[Life]:
    """Encoder and decoder: each level's result waits for its mirror image (U-Net)."""
    depth = count // 2
    sizes = [8 * chance.randint(1, 64) << max(0, 8 - level) for level in range(depth)]
    down = [Life(size, level, 2 * depth - level) for level, size in enumerate(sizes)]
    up = [Life(size, 2 * depth - level - 1, 2 * depth - level) for level, size in enumerate(sizes)]
    return down + up


def _irregular(chance: random.Random, count: int) -> list[Life]:
    """Blocks of any size and lifetime: on average a third of all is alive at once."""
    blocks = []
    for _ in range(count):
        born = chance.randrange(count)
        size = chance.randint(1, 1000) if chance.random() < 0.5 else 2 ** chance.randint(0, 12)
        blocks.append(Life(8 * size, born, born + chance.randint(0, count - born)))
    return blocks


@pytest.mark.parametrize("family", [_fork_and_join, _hourglass])
@pytest.mark.parametrize("count", [10, 60, 200])
def test_networks_come_within_five_percent(
    family: Callable[[random.Random, int], list[Life]], count: int
) -> None:
    worst = max(ratio(family(random.Random(seed), count)) for seed in range(30))
    assert worst <= 1.05


@pytest.mark.parametrize(
    ("count", "median", "worst"),
    # Measured, rounded up: such graphs are no networks, and the bound need not be reachable.
    [(20, 1.0, 1.0), (50, 1.0, 1.02), (200, 1.02, 1.06)],
)
def test_irregular_blocks_stay_near_the_bound(count: int, median: float, worst: float) -> None:
    ratios = sorted(ratio(_irregular(random.Random(seed), count)) for seed in range(20))
    assert ratios[len(ratios) // 2] <= median
    assert ratios[-1] <= worst
