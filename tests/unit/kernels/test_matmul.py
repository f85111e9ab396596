"""Matrix products with packed weights: every size, every dtype, the same bits in every batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.kernels import abi, reference
from vllm_mindspore.kernels.cpu import library

EXAMPLES = settings.get_profile("kernels")
SEEDS = st.integers(0, 2**32 - 1)


def rounds_activations(isa: str, dtype: str) -> bool:
    return isa in reference.ROUNDING_ISAS and dtype == "bfloat16"


def draw_weight(rng: np.random.Generator, n: int, k: int, dtype: str) -> np.ndarray:
    return reference.to_dtype(rng.standard_normal((n, k)) * rng.choice([1e-3, 1.0, 30.0]), dtype)


def draw_rows(rng: np.random.Generator, rows: int, k: int) -> np.ndarray:
    return (rng.standard_normal((rows, k)) * rng.choice([1e-2, 1.0, 50.0], (rows, 1))).astype(np.float32)


def product(
    x: np.ndarray, parts: Sequence[np.ndarray], dtype: str, rows: int, bias: np.ndarray | None = None
) -> list[np.ndarray]:
    packed = library.pack_weight(parts, dtype, dtype)
    inputs: list[Any] = [x, packed, *([] if bias is None else [bias]), abi.count(rows)]
    return abi.call("matmul" if bias is None else "matmul_bias", inputs, *[(len(x), len(part)) for part in parts])


@EXAMPLES
@given(
    seed=SEEDS,
    widths=st.lists(st.integers(1, 100), min_size=1, max_size=4),
    k=st.integers(1, 130),
    rows=st.integers(0, 40),
    padding=st.integers(0, 3),
    has_bias=st.booleans(),
)
def test_product_of_any_size(
    isa: str, dtype: str, seed: int, widths: list[int], k: int, rows: int, padding: int, has_bias: bool
) -> None:
    """Several outputs of one product (query, key, value), with and without bias; rows past the count stay as they were."""
    rng = np.random.default_rng(seed)
    parts = [draw_weight(rng, n, k, dtype) for n in widths]
    x = draw_rows(rng, rows + padding, k)
    bias = rng.standard_normal(sum(widths)).astype(np.float32) if has_bias else None
    results = product(x, parts, dtype, rows, bias)
    start = 0
    for result, part in zip(results, parts):
        exact, bound = reference.matmul(x[:rows], part, rounds_activations(isa, dtype))
        if bias is not None:
            exact = exact + bias[start : start + len(part)]
            bound = bound + reference.U * (np.abs(exact) + bound)
        reference.assert_within(result[:rows], exact, bound)
        assert (result[rows:] == abi.UNTOUCHED).all()
        start += len(part)


@EXAMPLES
@given(
    seed=SEEDS,
    width=st.integers(1, 70),
    k=st.integers(1, 100),
    rows=st.integers(0, 40),
    padding=st.integers(0, 3),
    has_bias=st.booleans(),
)
def test_gated_product_of_any_size(
    isa: str, dtype: str, seed: int, width: int, k: int, rows: int, padding: int, has_bias: bool
) -> None:
    rng = np.random.default_rng(seed)
    gate, up = draw_weight(rng, width, k, dtype), draw_weight(rng, width, k, dtype)
    x = draw_rows(rng, rows + padding, k)
    bias = rng.standard_normal(2 * width).astype(np.float32)
    packed = library.pack_weight([gate, up], dtype, dtype, interleave=True)
    name = "matmul_swiglu_bias" if has_bias else "matmul_swiglu"
    inputs = [x, packed, *([bias] if has_bias else []), abi.count(rows)]
    (result,) = abi.call(name, inputs, (rows + padding, width))

    halves = []
    for weight, part in (gate, bias[:width]), (up, bias[width:]):
        exact, bound = reference.matmul(x[:rows], weight, rounds_activations(isa, dtype))
        if has_bias:
            exact = exact + part
            bound = bound + reference.U * (np.abs(exact) + bound)
        halves += [exact, bound]
    with np.errstate(over="ignore"):
        reference.assert_within(result[:rows], *reference.swiglu(*halves))
    assert (result[rows:] == abi.UNTOUCHED).all()


@EXAMPLES
@given(
    seed=SEEDS,
    vocabulary=st.integers(1, 900),
    kinds=st.integers(1, 900),
    k=st.integers(1, 40),
    rows=st.integers(0, 40),
    padding=st.integers(0, 3),
    threads=st.integers(1, 3),
)
def test_the_largest_of_each_row_of_a_product(
    isa: str, dtype: str, seed: int, vocabulary: int, kinds: int, k: int, rows: int, padding: int, threads: int
) -> None:
    """The lowest index among equals, as numpy's: few kinds of features make ties, over all panels and threads. Some rows overflow to -inf."""
    rng = np.random.default_rng(seed)
    weight = reference.to_dtype(np.abs(rng.standard_normal((kinds, k))), dtype)[rng.integers(0, kinds, vocabulary)]
    x = (rng.standard_normal((rows + padding, k)) * rng.choice([0.0, 1.0], (rows + padding, 1))).astype(np.float32)
    x[rng.random(len(x)) < 0.1] = -3e38
    (same,) = product(x, [weight], dtype, rows)
    packed = library.pack_weight([weight], dtype, dtype)
    with abi.threads(threads):
        logits, found = abi.call(
            "matmul_argmax", [x, packed, abi.count(rows)], same.shape, (len(x),), dtype=[np.float32, np.int32]
        )
    assert np.array_equal(logits, same, equal_nan=True)
    assert (found[:rows] == logits[:rows].argmax(-1)).all()
    assert (found[rows:] == abi.UNTOUCHED).all()


def test_product_past_the_cache(isa: str, dtype: str) -> None:
    """So many rows that they pass in several blocks, and so many panels that an item takes more than one."""
    rng = np.random.default_rng(2)
    weight, x = draw_weight(rng, 1000, 1501, dtype), draw_rows(rng, 333, 1501)
    (result,) = product(x, [weight], dtype, 333)
    reference.assert_within(result, *reference.matmul(x, weight, rounds_activations(isa, dtype)))


@pytest.mark.parametrize("k", [7, 15, 31])
def test_what_lies_behind_a_row_is_not_read(isa: str, dtype: str, k: int) -> None:
    """Of an odd number of inputs, weights are filled up with a zero; times what is no number, that is none."""
    rng = np.random.default_rng(4)
    memory = np.full(k + 64, np.nan, np.float32)
    memory[:k] = rng.standard_normal(k)
    weight = draw_weight(rng, 40, k, dtype)
    (result,) = product(memory[:k].reshape(1, k), [weight], dtype, 1)
    reference.assert_within(result, *reference.matmul(memory[:k].reshape(1, k), weight, rounds_activations(isa, dtype)))


def test_gated_product_past_the_cache(isa: str, dtype: str) -> None:
    """What is gated waits for sums of all inputs, which may come in pieces."""
    rng = np.random.default_rng(3)
    gate, up, x = draw_weight(rng, 70, 1201, dtype), draw_weight(rng, 70, 1201, dtype), draw_rows(rng, 600, 1201)
    packed = library.pack_weight([gate, up], dtype, dtype, interleave=True)
    (result,) = abi.call("matmul_swiglu", [x, packed, abi.count(600)], (600, 70))
    halves = [part for weight in (gate, up) for part in reference.matmul(x, weight, rounds_activations(isa, dtype))]
    with np.errstate(over="ignore"):
        reference.assert_within(result, *reference.swiglu(*halves))


@pytest.mark.parametrize("k", [97, 1201])
def test_a_row_has_the_same_bits_in_every_batch(isa: str, dtype: str, k: int) -> None:
    """Otherwise a greedy answer would change with what else the server is doing."""
    rng = np.random.default_rng(0)
    x, weight = draw_rows(rng, 40, k), draw_weight(rng, 75, k, dtype)
    alone = np.concatenate([product(x[i : i + 1], [weight], dtype, 1)[0] for i in range(40)])
    for rows in range(1, 41):
        assert product(x, [weight], dtype, rows)[0][:rows].tobytes() == alone[:rows].tobytes(), f"{rows} rows"


@pytest.mark.parametrize("rows", [1, 7, 300])
def test_every_number_of_threads_computes_the_same_bits(isa: str, dtype: str, rows: int) -> None:
    rng = np.random.default_rng(1)
    x, weight = draw_rows(rng, rows, 320), draw_weight(rng, 700, 320, dtype)
    results = []
    for number in 1, 2, 3, 5:
        with abi.threads(number):
            results.append(product(x, [weight], dtype, rows)[0].tobytes())
    assert len(set(results)) == 1


def test_unknown_dtype_is_refused() -> None:
    with pytest.raises(AssertionError, match="matmul returned 1"):
        abi.call("matmul", [np.zeros((1, 2), np.float32), np.zeros((1, 2, 32), np.int16), abi.count(1)], (1, 3))
