"""Call an operator of the CPU library as MindSpore does, without MindSpore."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from vllm_mindspore.kernels.cpu import library

UNTOUCHED = -1234
"""What outputs hold before the call, so what an operator does not write still holds it afterwards."""

_MARGIN = 64  # elements around an output that nobody may write


def dtype_name(array: np.ndarray) -> str:
    """The name that MindSpore gives; bfloat16 is held as its bits."""
    return "bfloat16" if array.dtype == np.uint16 else str(array.dtype)


def count(n: int) -> np.ndarray:
    """A true count as the operators take it."""
    return np.array([n], np.int32)


def call(
    name: str, inputs: Sequence[np.ndarray], *outputs: Sequence[int], dtype: type | Sequence[type] = np.float32
) -> list[np.ndarray]:
    """Run an operator.

    Args:
        name: as the library exports it.
        inputs: C-contiguous; uint16 is bfloat16. Written by the operators that work in place.
        outputs: their shapes.
        dtype: of the outputs, or of each.

    Raises:
        AssertionError: the operator refused the inputs, or wrote beside its outputs.
    """
    assert all(array.flags.c_contiguous for array in inputs)
    dtypes = dtype if isinstance(dtype, Sequence) else [dtype] * len(outputs)
    wide = [np.full(int(np.prod(shape)) + 2 * _MARGIN, UNTOUCHED, d) for shape, d in zip(outputs, dtypes)]
    results = [w[_MARGIN:-_MARGIN].reshape(shape) for w, shape in zip(wide, outputs)]
    arrays = [*inputs, *results]
    shapes = [(ctypes.c_int64 * array.ndim)(*array.shape) for array in arrays]
    n = len(arrays)
    status = getattr(library.load(), name)(
        n,
        (ctypes.c_void_p * n)(*(array.ctypes.data for array in arrays)),
        (ctypes.c_int * n)(*(array.ndim for array in arrays)),
        (ctypes.POINTER(ctypes.c_int64) * n)(*(ctypes.cast(s, ctypes.POINTER(ctypes.c_int64)) for s in shapes)),
        (ctypes.c_char_p * n)(*(dtype_name(array).encode() for array in arrays)),
        None,
        None,
    )
    assert status == 0, f"{name} returned {status}"
    for w in wide:
        assert (w[:_MARGIN] == UNTOUCHED).all(), f"{name} wrote before its output"
        assert (w[-_MARGIN:] == UNTOUCHED).all(), f"{name} wrote past its output"
    return results


@contextmanager
def threads(number: int) -> Iterator[None]:
    """Share operators between `number` threads."""
    before = library.num_threads()
    library.set_num_threads(number)
    try:
        yield
    finally:
        library.set_num_threads(before)
