"""What a fuzzed network is made of: a short text, to build it again from and to make smaller.

    2d:1841 conv:77 batch_norm:3 sign:512 classifier:9

is an image, a convolution, a BatchNorm, a sign and a head. The number of each block is the seed of
all that the block draws: dropping one leaves the draws of the others as they are, though not what
they apply to. `@8` at the end limits channels and lengths, again for smaller failures.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from hypothesis import strategies as st

__all__ = ["Block", "Menu", "Plan", "parse_plan", "plan_of", "plans", "shrunk"]

MOST_BLOCKS = 7
UNLIMITED = 1000
_SEEDS = 2**16
_LIMITS = (UNLIMITED, 33, 8, 3, 2, 1)
_FORM = re.compile(r"(\w+):(\d+)")


@dataclass(frozen=True)
class Block:
    """A kind of block, and the seed of its attributes and numbers."""

    kind: str
    seed: int

    def __str__(self) -> str:
        return f"{self.kind}:{self.seed}"


@dataclass(frozen=True)
class Plan:
    """A network: what goes in, the blocks, how it ends, and the most channels and rows."""

    stem: Block
    blocks: tuple[Block, ...]
    tail: Block
    limit: int = UNLIMITED

    def __str__(self) -> str:
        text = " ".join(map(str, (self.stem, *self.blocks, self.tail)))
        return text if self.limit == UNLIMITED else f"{text} @{self.limit}"


@dataclass(frozen=True)
class Menu:
    """The kinds of blocks to choose from, each as often as it is drawn."""

    stems: Sequence[str]
    blocks: Sequence[str]
    tails: Sequence[str]


def plan_of(seed: int, menu: Menu) -> Plan:
    """Return the plan that belongs to an integer."""
    draw = np.random.default_rng(seed)

    def block(kinds: Sequence[str]) -> Block:
        return Block(str(draw.choice(kinds)), int(draw.integers(_SEEDS)))

    count = draw.integers(2, MOST_BLOCKS + 1)
    return Plan(
        block(menu.stems), tuple(block(menu.blocks) for _ in range(count)), block(menu.tails)
    )


def plans(menu: Menu) -> st.SearchStrategy[Plan]:
    """Return plans as Hypothesis draws and shrinks them: fewer blocks, simpler kinds, low seeds."""

    def block(kinds: Sequence[str]) -> st.SearchStrategy[Block]:
        kind = st.sampled_from(list(dict.fromkeys(kinds)))
        return st.builds(Block, kind, st.integers(0, _SEEDS - 1))

    blocks = st.lists(block(menu.blocks), max_size=MOST_BLOCKS).map(tuple)
    return st.builds(Plan, block(menu.stems), blocks, block(menu.tails))


def parse_plan(text: str) -> Plan:
    """Return the plan that a text stands for; ValueError if it stands for none."""
    words = text.split()
    limit = int(words.pop()[1:]) if words and words[-1].startswith("@") else UNLIMITED
    found = [_FORM.fullmatch(word) for word in words]
    if len(found) < 2 or None in found:
        raise ValueError(f"not a plan: {text!r}")
    stem, *blocks, tail = (Block(m[1], int(m[2])) for m in found if m)
    return Plan(stem, tuple(blocks), tail, limit)


def shrunk(plan: Plan, fails: Callable[[Plan], bool]) -> Plan:
    """Return the smallest plan found that still fails: blocks dropped, then sizes limited."""
    smaller = next(filter(fails, _smaller(plan)), None)
    while smaller is not None:
        plan = smaller
        smaller = next(filter(fails, _smaller(plan)), None)
    return plan


def _smaller(plan: Plan) -> Iterator[Plan]:
    half = len(plan.blocks) // 2
    if half > 1:
        yield replace(plan, blocks=plan.blocks[:half])
        yield replace(plan, blocks=plan.blocks[half:])
    for i in range(len(plan.blocks)):
        yield replace(plan, blocks=plan.blocks[:i] + plan.blocks[i + 1 :])
    if plan.tail.kind != "nothing":
        yield replace(plan, tail=Block("nothing", 0))
    for limit in reversed(_LIMITS):
        if limit < plan.limit:
            yield replace(plan, limit=limit)
