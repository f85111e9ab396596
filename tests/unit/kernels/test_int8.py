"""Weights in int8 against numpy, for every instruction set: what they are rounded to, and the products with them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.kernels import abi, reference
from vllm_mindspore.kernels.cpu import library
from vllm_mindspore.kernels.errors import NotFinite

EXAMPLES = settings.get_profile("kernels")
SEEDS = st.integers(0, 2**32 - 1)
INPUTS = st.one_of(st.integers(1, 130), st.integers(500, 1100))  # int32 sums are cut every 512 inputs


def rounded(weight: np.ndarray) -> np.ndarray:
    """What weights are rounded to, with the steps in float32 that decide about the middle of two integers."""
    exact = reference.to_double(weight).astype(np.float32)
    largest = np.abs(exact).max(1, keepdims=True)
    inverse = np.divide(np.float32(127), largest, out=np.zeros_like(largest), where=largest > 0)
    return np.rint(exact * inverse).astype(np.float64) * (largest / np.float32(127))


def draw(rng: np.random.Generator, n: int, k: int, dtype: str = "bfloat16") -> np.ndarray:
    return reference.to_dtype(rng.standard_normal((n, k)) * rng.choice([1e-3, 1.0, 30.0], (n, 1)), dtype)


def draw_rows(rng: np.random.Generator, rows: int, k: int) -> np.ndarray:
    """With now and then an input far larger than the others, as real activations have them."""
    large = np.where(rng.random((rows, k)) < 0.01, 300.0, 1.0)
    return (rng.standard_normal((rows, k)) * large).astype(np.float32)


def exact_product(x: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The product, and how far it may be off: half a step of each input's int16."""
    left, right = x.astype(np.float64), rounded(weight)
    half_step = np.abs(left).max(1, keepdims=True) / 65534 * (1 + 1e-3)
    bound = half_step * np.abs(right).sum(1)
    return left @ right.T, bound + 16 * reference.U * (np.abs(left) @ np.abs(right).T) + 1e-30


@EXAMPLES
@given(
    seed=SEEDS,
    widths=st.lists(st.integers(1, 70), min_size=1, max_size=3),
    k=INPUTS,
    rows=st.integers(0, 30),
    has_bias=st.booleans(),
)
def test_product_of_any_size(isa: str, seed: int, widths: list[int], k: int, rows: int, has_bias: bool) -> None:
    rng = np.random.default_rng(seed)
    parts, x = [draw(rng, n, k) for n in widths], draw_rows(rng, rows + 2, k)
    bias = rng.standard_normal(sum(widths)).astype(np.float32)
    packed = library.pack_weight(parts, "int8", "bfloat16")
    inputs: list[Any] = [x, packed, *([bias] if has_bias else []), abi.count(rows)]
    results = abi.call("matmul_bias" if has_bias else "matmul", inputs, *[(rows + 2, n) for n in widths])
    exact, bound = exact_product(x[:rows], np.concatenate(parts))
    if has_bias:
        exact, bound = exact + bias, bound + 2 * reference.U * (np.abs(exact) + np.abs(bias))
    reference.assert_within(np.concatenate([result[:rows] for result in results], 1), exact, bound)
    assert all((result[rows:] == abi.UNTOUCHED).all() for result in results)


@EXAMPLES
@given(seed=SEEDS, width=st.integers(1, 70), k=INPUTS, rows=st.integers(1, 30))
def test_gated_product_of_any_size(isa: str, seed: int, width: int, k: int, rows: int) -> None:
    rng = np.random.default_rng(seed)
    gate, up, x = draw(rng, width, k), draw(rng, width, k), draw_rows(rng, rows, k)
    packed = library.pack_weight([gate, up], "int8", "bfloat16", interleave=True)
    (result,) = abi.call("matmul_swiglu", [x, packed, abi.count(rows)], (rows, width))
    with np.errstate(over="ignore"):
        reference.assert_within(result, *reference.swiglu(*exact_product(x, gate), *exact_product(x, up)))


@pytest.mark.parametrize("k", [97, 576, 1501])
def test_a_row_has_the_same_bits_in_every_batch_and_on_every_number_of_threads(isa: str, k: int) -> None:
    rng = np.random.default_rng(0)
    x, packed = draw_rows(rng, 40, k), library.pack_weight([draw(rng, 75, k)], "int8", "bfloat16")
    (together,) = abi.call("matmul", [x, packed, abi.count(40)], (40, 75))
    for threads in (1, 3):
        with abi.threads(threads):
            for row in range(0, 40, 7):
                (alone,) = abi.call("matmul", [x[row : row + 1], packed, abi.count(1)], (1, 75))
                assert (alone[0] == together[row]).all()


@pytest.mark.parametrize("src_dtype", ["bfloat16", "float16", "float32"])
def test_weights_are_rounded_to_the_nearest(isa: str, src_dtype: str) -> None:
    """An embedding's rows are the weights themselves; a row of zeros stays one."""
    rng = np.random.default_rng(1)
    weight = draw(rng, 70, 33, src_dtype)
    weight[5] = 0
    packed = library.pack_weight([weight], "int8", src_dtype)
    ids = np.array([*range(70), 96, -1], np.int32)  # panels are filled up to 96
    (result,) = abi.call("embedding", [packed, ids, abi.count(72)], (72, 33))
    assert (result[:70] == rounded(weight).astype(np.float32)).all()
    exact = reference.to_double(weight)
    assert (np.abs(result[:70] - exact) <= 0.5001 / 127 * np.abs(exact).max(1, keepdims=True)).all()
    assert (result[70:] == 0).all()


@EXAMPLES
@given(seed=SEEDS, n=st.integers(1, 70), k=INPUTS, counts=st.lists(st.integers(0, 9), min_size=1, max_size=4))
def test_products_of_experts(isa: str, seed: int, n: int, k: int, counts: list[int]) -> None:
    rng = np.random.default_rng(seed)
    weights, x = [draw(rng, n, k) for _ in counts], draw_rows(rng, sum(counts) + 1, k)
    packed = np.stack([library.pack_weight([weight], "int8", "bfloat16") for weight in weights])
    ends = np.cumsum(counts).astype(np.int32)
    (result,) = abi.call("grouped_matmul", [x, packed, ends], (len(x), n))
    for weight, end, rows in zip(weights, ends, counts):
        reference.assert_within(result[end - rows : end], *exact_product(x[end - rows : end], weight))


@EXAMPLES
@given(seed=SEEDS, widths=st.lists(st.integers(1, 70), min_size=1, max_size=3), k=INPUTS, interleave=st.booleans())
def test_weights_that_are_int8_already_keep_their_numbers_and_scales(
    isa: str, seed: int, widths: list[int], k: int, interleave: bool
) -> None:
    rng = np.random.default_rng(seed)
    widths = widths[:1] * 2 if interleave else widths
    parts = [rng.integers(-128, 128, (n, k), np.int8) for n in widths]
    scales = [rng.uniform(1e-4, 10, n).astype(np.float32) for n in widths]
    again = library.pack_weight(parts, "int8", "int8", interleave, scales=scales)
    # Of numbers up to 127, one of which is in each row, what is made of the floats is the same.
    for part in parts:
        part[part == -128] = 127
        part[:, 0] = 127
    floats = [part * scale[:, None] for part, scale in zip(parts, scales)]
    made = library.pack_weight(floats, "int8", "float32", interleave)
    copied = library.pack_weight(parts, "int8", "int8", interleave, scales=scales)
    numbers = slice(library.PANEL * 4, None)
    assert (made[:, numbers] == copied[:, numbers]).all()
    np.testing.assert_allclose(of_scales(made), of_scales(copied), rtol=1e-6)
    assert (of_scales(again) == of_scales(copied)).all()


def of_scales(packed: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(packed[:, : library.PANEL * 4]).view(np.float32)


@pytest.mark.parametrize("k", [512, 513, 1024])
def test_the_largest_numbers_do_not_overflow(isa: str, k: int) -> None:
    weight, x = np.full((40, k), -128, np.int8), np.full((3, k), -7.0, np.float32)
    packed = library.pack_weight([weight], "int8", "int8", scales=[np.full(40, 0.5, np.float32)])
    (result,) = abi.call("matmul", [x, packed, abi.count(3)], (3, 40))
    np.testing.assert_allclose(result, np.full((3, 40), 7.0 * 64 * k), rtol=1e-5)


@pytest.mark.parametrize("where", [slice(None), 0, 77, 130])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_does_not_become_one(isa: str, where: slice | int, value: float) -> None:
    x = np.ones((3, 131), np.float32)
    x[1, where] = value
    packed = library.pack_weight([np.ones((5, 131), np.float32)], "int8", "float32")
    (result,) = abi.call("matmul", [x, packed, abi.count(3)], (3, 5))
    assert np.isnan(result[1]).all()
    assert np.isfinite(result[[0, 2]]).all()


def test_int8_without_scales_is_refused() -> None:
    numbers, scales = np.ones((3, 4), np.int8), [np.ones(3, np.float32)]
    for dtype, source, given_scales in (
        ("int8", "int8", None),
        ("bfloat16", "int8", scales),
        ("int8", "int8", [np.ones(2, np.float32)]),
    ):
        with pytest.raises(ValueError, match="scale"):
            library.pack_weight([numbers], dtype, source, scales=given_scales)
    with pytest.raises(NotFinite):
        library.pack_weight([numbers], "int8", "int8", scales=[np.array([1, np.inf, 1], np.float32)])


def test_infinity_is_refused() -> None:
    weight = np.ones((3, 4), np.float32)
    weight[1, 2] = np.inf
    with pytest.raises(NotFinite):
        library.pack_weight([weight], "int8", "float32")


def test_a_cache_cannot_be_int8() -> None:
    cache, slots = np.zeros((2, 4, 1, 8), np.int8), np.zeros(1, np.int32)
    row = np.ones((1, 8), np.float32)
    with pytest.raises(AssertionError, match="reshape_and_cache returned 1"):
        abi.call("reshape_and_cache", [row, row, cache, cache, slots, abi.count(1)], (1,))
