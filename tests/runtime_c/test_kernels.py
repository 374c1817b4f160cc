"""Every row of kernels.inc against an oracle, and against the other rows of its operation.

Those are the kernels that add up one run of a reduction; tiles are in test_tiles.py, and those of
real sums in test_real_tiles.py.

A new row is tested by its operation: nothing to register here. A new operation needs a `Problem`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pytest

from bnncc.targets import Kernel, load_kernels
from tests.runtime_c.driver import Array, Guarded, Library

KERNELS = tuple(kernel for kernel in load_kernels() if not kernel.is_tile)
CHANNELS = 37  # no multiple of any block
LENGTHS = sorted({*range(1, 201), *(32 * n + d for n in (8, 9, 16, 31, 64) for d in (-1, 0, 1))})


def each_kernel(*operations: str) -> pytest.MarkDecorator:
    rows = [kernel for kernel in KERNELS if not operations or kernel.operation in operations]
    return pytest.mark.parametrize("kernel", rows, ids=str)


@dataclass(frozen=True)
class Problem:
    """A layer of one operation: values x [K] and weights [O, K], and what comes of them.

    Attributes:
        draw: makes (x, weights) from a generator, K, O and a pattern.
        oracle: what (x, weights) make of the results [O] that are there; written without numpy
            where integers are exact, else step by step.
        store: the arrays that a kernel reads: x, and the weights of one block.
        result: the element type of the results.
    """

    draw: Callable[[np.random.Generator, int, int, str], tuple[Array, Array]]
    oracle: Callable[[Array, Array, Array], Array]
    store: Callable[[Kernel, Array, Array], tuple[int, Array, Array]]
    result: str


PATTERNS = ("random", "ones", "zeros", "opposite")


def _bits(random: np.random.Generator, k: int, channels: int, pattern: str) -> tuple[Array, Array]:
    x, weights = (random.integers(0, 2, shape).astype(bool) for shape in (k, (channels, k)))
    match pattern:
        case "ones":
            return np.ones_like(x), np.ones_like(weights)
        case "zeros":
            return np.zeros_like(x), np.zeros_like(weights)
        case "opposite":  # every bit a mismatch: the largest count
            return np.ones_like(x), np.zeros_like(weights)
        case _:
            return x, weights


def _as_integer(bits: Array) -> int:
    return sum(1 << i for i in np.flatnonzero(bits).tolist())


def _mismatches(start: Array, x: Array, weights: Array) -> Array:
    x_bits = _as_integer(x)
    counts = [(x_bits ^ _as_integer(row)).bit_count() for row in weights]
    return np.array([a + b for a, b in zip(start.tolist(), counts, strict=True)], np.uint32)


def _words(bits: Array, word_bits: int) -> Array:
    """Pack the last axis, the first bit lowest, zeros past the end: Python's own integers."""
    count = -(-bits.shape[-1] // word_bits)
    mask = (1 << word_bits) - 1
    rows = [_as_integer(row) for row in bits.reshape(-1, bits.shape[-1])]
    words = [[row >> (word_bits * i) & mask for i in range(count)] for row in rows]
    return np.array(words, f"uint{word_bits}").reshape(*bits.shape[:-1], count)


def _xnor_store(kernel: Kernel, x: Array, block: Array) -> tuple[int, Array, Array]:
    words = _words(x, kernel.word_bits)
    return len(words), words, np.ascontiguousarray(_words(block, kernel.word_bits).T)


def _reals(random: np.random.Generator, k: int, channels: int, pattern: str) -> tuple[Array, Array]:
    x = (random.standard_normal(k) * 10.0 ** random.integers(-6, 7, k)).astype(np.float32)
    weights = random.standard_normal((channels, k)).astype(np.float32)
    match pattern:
        case "ones":
            return np.ones_like(x), np.ones_like(weights)
        case "zeros":  # sums of zeros of both signs
            return np.where(x > 0, 0, -0.0).astype(np.float32), weights
        case "opposite":
            return np.abs(x), -np.abs(weights)
        case _:
            return x, weights


def _signed_sum(start: Array, x: Array, weights: Array) -> Array:
    total = start
    for value, column in zip(x, (weights > 0).T, strict=True):
        total = total + np.where(column, value, -value)
    return total


def _lanes_store(kernel: Kernel, x: Array, block: Array) -> tuple[int, Array, Array]:
    assert kernel.word_bits == kernel.nr
    return len(x), x, _words((block > 0).T, kernel.nr)[:, 0]


def _dot(start: Array, x: Array, weights: Array) -> Array:
    total = start
    for value, column in zip(x, weights.T, strict=True):
        product = value * column
        total = total + product
    return total


def _real_store(kernel: Kernel, x: Array, block: Array) -> tuple[int, Array, Array]:
    return len(x), x, np.ascontiguousarray(block.T)


PROBLEMS = {
    "xnor": Problem(_bits, _mismatches, _xnor_store, "uint32"),
    "sign_sum": Problem(_reals, _signed_sum, _lanes_store, "float32"),
    "real_sum": Problem(_reals, _dot, _real_store, "float32"),
}


def started(operation: str, channels: int) -> Array:
    """Return what a kernel may find in its results: counts, or sums of both signs and zeros."""
    random = np.random.default_rng(channels)
    if PROBLEMS[operation].result == "uint32":
        return random.integers(0, 2**24, channels, np.uint32)
    sums = random.standard_normal(channels) * 10.0 ** random.integers(-3, 4, channels)
    return np.where(random.random(channels) < 0.2, -0.0, sums).astype(np.float32)


def run(
    library: Library, kernel: Kernel, x: Array, weights: Array, start: Array | None = None
) -> Array:
    """Return the results [O] of a whole layer, block by block, channels past O being zeros.

    They count on from `start` [O], or from 0.
    """
    assert kernel.mr == 1, "say here how a kernel of several rows lays them out"
    problem = PROBLEMS[kernel.operation]
    blocks = []
    for first in range(0, len(weights), kernel.nr):
        block = np.zeros((kernel.nr, weights.shape[1]), weights.dtype)
        block[: len(weights) - first] = weights[first : first + kernel.nr]
        count, stored_x, stored_w = problem.store(kernel, x, block)
        found = np.zeros(kernel.nr, problem.result)
        if start is not None:
            found[: len(start) - first] = start[first : first + kernel.nr]
        out = Guarded.of(found)
        blocks.append(library.kernel(kernel.symbol, count, stored_x, stored_w, out))
    return np.concatenate(blocks)[: len(weights)]


def problems(operation: str, lengths: list[int], channels: int) -> Iterator[tuple[Array, Array]]:
    random = np.random.default_rng(len(lengths))
    for k in lengths:
        for pattern in PATTERNS if k % 16 == 1 else PATTERNS[:1]:
            yield PROBLEMS[operation].draw(random, k, channels, pattern)


def assert_same_bits(actual: Array, expected: Array, what: object) -> None:
    assert actual.dtype == expected.dtype
    assert actual.tobytes() == expected.tobytes(), f"{what}: {actual} is not {expected}"


def test_every_operation_has_a_problem_and_every_problem_a_kernel() -> None:
    assert {kernel.operation for kernel in KERNELS} == PROBLEMS.keys()


@each_kernel()
def test_kernel_computes_its_definition_at_every_length(library: Library, kernel: Kernel) -> None:
    oracle = PROBLEMS[kernel.operation].oracle
    nothing = np.zeros(kernel.nr, PROBLEMS[kernel.operation].result)
    for x, weights in problems(kernel.operation, LENGTHS, kernel.nr):
        actual = run(library, kernel, x, weights)
        assert_same_bits(actual, oracle(nothing, x, weights), f"K = {len(x)}")


@each_kernel()
def test_kernel_counts_on_from_what_is_there(library: Library, kernel: Kernel) -> None:
    oracle = PROBLEMS[kernel.operation].oracle
    start = started(kernel.operation, kernel.nr)
    for x, weights in problems(kernel.operation, [1, 2, 3, 17, 33, 64, 65, 97, 200], kernel.nr):
        actual = run(library, kernel, x, weights, start)
        assert_same_bits(actual, oracle(start, x, weights), f"K = {len(x)}")


@each_kernel("sign_sum", "real_sum")
def test_a_sum_in_pieces_is_the_sum(library: Library, kernel: Kernel) -> None:
    # A convolution calls its kernel once a kernel row, on runs of the reduction.
    for x, weights in problems(kernel.operation, [7, 30, 97], kernel.nr):
        whole = run(library, kernel, x, weights)
        cut = len(x) // 3
        sums = run(library, kernel, x[:cut], weights[:, :cut])
        sums = run(library, kernel, x[cut:], weights[:, cut:], sums)
        assert_same_bits(sums, whole, f"K = {len(x)}")


@pytest.mark.parametrize("operation", PROBLEMS)
def test_rows_of_one_operation_agree_bit_for_bit(library: Library, operation: str) -> None:
    rows = [kernel for kernel in KERNELS if kernel.operation == operation]
    start = started(operation, CHANNELS)
    for x, weights in problems(operation, [1, 31, 32, 33, 63, 64, 65, 127, 200], CHANNELS):
        expected = PROBLEMS[operation].oracle(start, x, weights)
        for kernel in rows:
            actual = run(library, kernel, x, weights, start)
            assert_same_bits(actual, expected, (str(kernel), len(x)))


@each_kernel("xnor")
@pytest.mark.parametrize("pattern", PATTERNS)
def test_long_reductions_do_not_overflow_a_counter(
    library: Library, kernel: Kernel, pattern: str
) -> None:
    # Past 2^8, 2^16 and 2^21 mismatches a lane, where counters of 8 and 16 bits would wrap.
    for words in (9, 257, 2049, 70_000):
        random = np.random.default_rng(words)
        dtype = np.dtype(f"uint{kernel.word_bits}")
        full = np.iinfo(dtype).max
        shapes = {"x": words, "w": (words, kernel.nr)}
        match pattern:
            case "random":
                x, w = (random.integers(0, full, s, dtype, endpoint=True) for s in shapes.values())
            case "opposite":
                x, w = np.full(shapes["x"], full, dtype), np.zeros(shapes["w"], dtype)
            case _:
                value = full if pattern == "ones" else 0
                x, w = (np.full(s, value, dtype) for s in shapes.values())
        columns = [int.from_bytes(np.ascontiguousarray(c).tobytes(), "little") for c in w.T]
        x_bits = int.from_bytes(x.tobytes(), "little")
        expected = np.array([(x_bits ^ column).bit_count() for column in columns], np.uint32)
        out = Guarded.of(np.zeros(kernel.nr, np.uint32))
        assert_same_bits(library.kernel(kernel.symbol, words, x, w, out), expected, words)


@each_kernel("sign_sum", "real_sum")
def test_sums_keep_their_order(library: Library, kernel: Kernel) -> None:
    # 1e8 + 1 - 1e8 is 0 in this order and 1 in any that cancels first.
    x = np.array([1e8, 1, -1e8, 3e-45, 2**-24, 1], np.float32)
    weights = np.ones((kernel.nr, len(x)), np.float32)
    expected = np.full(kernel.nr, np.float32(3e-45) + np.float32(2**-24) + np.float32(1))
    assert expected.dtype == np.float32
    assert_same_bits(run(library, kernel, x, weights), expected, "cancelling")


@each_kernel("real_sum")
def test_products_round_before_they_are_added(library: Library, kernel: Kernel) -> None:
    random = np.random.default_rng(5)
    for _ in range(50):
        a, b = random.standard_normal((2, kernel.nr)).astype(np.float32)
        rounded = a * b
        for n in range(kernel.nr):
            # -fl(ab) first, then ab: 0 if the product is rounded, its rounding error if it is not.
            x = np.array([1, a[n]], np.float32)
            weights = np.stack([-rounded, np.full(kernel.nr, b[n])], axis=1)
            expected = -rounded + np.float32(a[n] * b[n])
            assert expected[n] == 0
            assert_same_bits(run(library, kernel, x, weights), expected, (a[n], b[n]))


@each_kernel()
def test_nothing_to_reduce_changes_nothing(library: Library, kernel: Kernel) -> None:
    nothing = np.zeros(1, np.uint64)
    start = started(kernel.operation, kernel.nr)
    actual = library.kernel(kernel.symbol, 0, nothing, nothing, Guarded.of(start))
    assert_same_bits(actual, start, "K = 0")


def test_c_reads_the_rows_that_python_reads(library: Library) -> None:
    assert library.rows() == load_kernels()
