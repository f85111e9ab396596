"""Packed weights: the order, the conversions, and what a checkpoint may not hold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.kernels import abi, reference
from vllm_mindspore.kernels.cpu import library
from vllm_mindspore.kernels.errors import NotFinite

EXAMPLES = settings.get_profile("kernels")
SEEDS = st.integers(0, 2**32 - 1)
DTYPES = ["bfloat16", "float16", "float32"]


def unpack(packed: np.ndarray, n: int, k: int) -> np.ndarray:
    """Undo the order that docs/kernels.md describes: `[panels, pairs, 32, 2]`, or `[panels, k, 32]` for float32; with AMX, each 16 pairs in halves."""
    if packed.ndim == 3:
        packed = packed[..., None]
    panels, steps, lanes, together = packed.shape
    if library.isa() == "amx" and packed.dtype == np.uint16:
        tiles = [packed[:, first : first + 16] for first in range(0, steps, 16)]
        halves = [tile.reshape(panels, 2, -1, lanes // 2, together).transpose(0, 2, 1, 3, 4) for tile in tiles]
        packed = np.concatenate([half.reshape(panels, -1, lanes, together) for half in halves], 1)
    return packed.transpose(0, 2, 1, 3).reshape(panels * lanes, steps * together)[:n, :k]


@EXAMPLES
@given(seed=SEEDS, rows=st.lists(st.integers(1, 70), min_size=1, max_size=4), k=st.integers(1, 80))
@pytest.mark.parametrize("source", DTYPES)
def test_stacked_parts_in_the_documented_order(
    isa: str, dtype: str, source: str, seed: int, rows: list[int], k: int
) -> None:
    """Every conversion between the dtypes rounds as numpy does; what fills the last panel is 0."""
    rng = np.random.default_rng(seed)
    parts = [
        reference.to_dtype(rng.standard_normal((n, k)) * 10.0 ** rng.integers(-8, 4, (n, k)), source) for n in rows
    ]
    packed = library.pack_weight(parts, dtype, source)
    assert packed.shape == library.packed_shape(sum(rows), k, dtype)
    expected = reference.to_dtype(reference.to_double(np.concatenate(parts)).astype(np.float32), dtype)
    assert reference.same_values(np.ascontiguousarray(unpack(packed, sum(rows), k)), expected)
    assert np.count_nonzero(packed) == np.count_nonzero(expected)


@EXAMPLES
@given(seed=SEEDS, width=st.integers(1, 70), k=st.integers(1, 40))
def test_gate_and_up_lie_side_by_side(isa: str, dtype: str, seed: int, width: int, k: int) -> None:
    """16 rows of each make a panel."""
    rng = np.random.default_rng(seed)
    gate, up = (reference.to_dtype(rng.standard_normal((width, k)), dtype) for _ in range(2))
    packed = library.pack_weight([gate, up], dtype, dtype, interleave=True)
    assert packed.shape == library.packed_shape(2 * width, k, dtype, interleave=True)
    panels = unpack(packed, 32 * len(packed), k).reshape(len(packed), 2, 16, k)
    assert (panels[:, 0].reshape(-1, k)[:width] == gate).all()
    assert (panels[:, 1].reshape(-1, k)[:width] == up).all()


def test_weights_are_read_from_an_unaligned_memory_map(tmp_path: Path) -> None:
    """safetensors promises no alignment."""
    weight = np.arange(35 * 7, dtype=np.float32).reshape(35, 7)
    (tmp_path / "weights").write_bytes(b"xyz" + weight.tobytes())
    mapped = np.memmap(tmp_path / "weights", np.uint8, "r")[3:].view(np.float32).reshape(35, 7)
    assert mapped.ctypes.data % 4
    assert (unpack(library.pack_weight([mapped], "float32", "float32"), 35, 7) == weight).all()


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("source", DTYPES)
def test_a_value_that_is_no_number_is_refused(dtype: str, source: str, value: float) -> None:
    weight = np.ones((40, 9), np.float32)
    weight[39, 8] = value
    with pytest.raises(NotFinite, match="not a finite number"):
        library.pack_weight([reference.to_dtype(weight, source)], dtype, source)


def test_a_value_that_float16_cannot_hold_is_refused() -> None:
    """A bfloat16 checkpoint served as float16 would otherwise answer with NaN."""
    weight = np.full((1, 1), 65519.0, np.float32)
    assert unpack(library.pack_weight([weight], "float16", "float32"), 1, 1) == 65504
    with pytest.raises(NotFinite, match="not a finite number"):
        library.pack_weight([weight + 1], "float16", "float32")


def test_every_number_of_threads_packs_alike(dtype: str) -> None:
    weight = np.random.default_rng(0).standard_normal((500, 65)).astype(np.float32)
    results = []
    for number in 1, 2, 3, 5:
        with abi.threads(number):
            results.append(library.pack_weight([weight], dtype, "float32").tobytes())
    assert len(set(results)) == 1


@pytest.mark.parametrize(
    "arrays",
    [
        [np.zeros((2, 3), np.float32), np.zeros((2, 4), np.float32)],
        [np.zeros((3, 2), np.float32).T],
        [np.zeros((2, 3), np.float64)],
        [np.zeros((2, 6), np.float32)[:, ::2]],
    ],
    ids=["widths differ", "column-major", "float64", "every other column"],
)
def test_arrays_that_would_be_misread_are_refused(arrays: list[np.ndarray]) -> None:
    with pytest.raises(ValueError, match="row-major"):
        library.pack_weight(arrays, "float32", "float32")


@pytest.mark.parametrize("shapes", [[(2, 3)], [(2, 3), (3, 3)], [(2, 3)] * 3])
def test_interleaving_takes_two_parts_of_one_shape(shapes: list[tuple[int, int]]) -> None:
    with pytest.raises(ValueError, match="two parts of one shape"):
        library.pack_weight([np.zeros(s, np.float32) for s in shapes], "float32", "float32", interleave=True)
