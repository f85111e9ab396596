"""The compiled CPU kernels: where they are, which instruction set they use, and the calls that go past MindSpore."""

from __future__ import annotations

import contextlib
import ctypes
import math
import mmap
import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

import vllm_mindspore.kernels.cpu as _package
from vllm_mindspore.kernels.cpu.cores import usable_cores
from vllm_mindspore.kernels.errors import KernelError, NotFinite

_FILE = "libvllm_mindspore_cpu.so"
_DTYPES = {"bfloat16": 0, "float16": 1, "float32": 2, "int8": 3}
_STORAGE: dict[str, np.dtype[Any]] = {
    "bfloat16": np.dtype(np.uint16),
    "float16": np.dtype(np.float16),
    "float32": np.dtype(np.float32),
    "int8": np.dtype(np.int8),
}

_MOST_THREADS = 1024
"""More than that in OMP_NUM_THREADS is a slip of the keyboard."""

PANEL = 32
"""Output features per panel of a packed weight (`kPanel` in csrc/kernels.h)."""


@cache
def path() -> Path:
    """The shared library.

    Raises:
        KernelError: it was not built.
    """
    # In an editable install the Python files stay in the checkout and the library is put into site-packages: the package's
    # path names both.
    folders = [Path(folder) for folder in _package.__path__]
    for folder in folders:
        if (folder / _FILE).is_file():
            return folder / _FILE
    raise KernelError(
        f"The CPU kernels are not built: {folders[0] / _FILE} is missing. "
        "Install the package again from where it came from, with a C++ compiler (g++ 10 or later) at hand: "
        "vllm-mindspore check-env names the command."
    )


@cache
def load() -> ctypes.CDLL:
    """The shared library, loaded.

    Raises:
        KernelError: it was not built, or not for this machine.
    """
    try:
        library = ctypes.CDLL(str(path()))
    except OSError as error:
        raise KernelError(
            f"The CPU kernels cannot be loaded ({error}): they were built for another machine. "
            "Install the package again on this machine, from where it came from: vllm-mindspore check-env names the command."
        ) from None
    library.vms_isa.restype = library.vms_available_isa.restype = ctypes.c_char_p
    pointer, number = ctypes.c_void_p, ctypes.c_int
    library.vms_capture_begin.restype = library.vms_capture_free.restype = None
    library.vms_capture_end.restype = library.vms_capture_result.restype = pointer
    library.vms_capture_end.argtypes = library.vms_capture_result.argtypes = [pointer, number]
    library.vms_capture_launch.argtypes = library.vms_capture_free.argtypes = [pointer]
    library.vms_pack_weight.argtypes = [
        pointer,
        pointer,
        ctypes.c_int64,
        ctypes.c_int64,
        number,
        number,
        number,
        pointer,
        pointer,
    ]
    library.vms_sample.restype = None
    library.vms_sample.argtypes = [pointer, ctypes.c_int64, ctypes.c_int64, *[pointer] * 6]
    library.vms_take_memory.restype = None
    library.vms_take_memory.argtypes = [pointer, pointer, number, *[ctypes.c_int64] * 3, pointer]
    library.vms_set_num_threads(_wanted_threads())
    return library


def _wanted_threads() -> int:
    """OMP_NUM_THREADS as Python knows it: in the environment that C code sees, MindSpore's libraries set it to 1 as they are loaded."""
    asked = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return min(int(asked), _MOST_THREADS) if asked.isdecimal() and int(asked) else usable_cores()


def isa() -> str:
    """Name of the instruction set in use."""
    name: bytes = load().vms_isa()
    return name.decode()


def available_isas() -> list[str]:
    """Instruction sets that the library was built for and this machine can run, best first; the last runs anywhere."""
    names: list[str] = []
    while name := load().vms_available_isa(len(names)):
        names.append(name.decode())
    return names


def set_isa(name: str) -> None:
    """Use another instruction set than the best one.

    Raises:
        KernelError: it is not available.
    """
    if not load().vms_set_isa(name.encode()):
        raise KernelError(
            f"No kernels for the instruction set {name} here: choose one of {', '.join(available_isas())}."
        )


def num_threads() -> int:
    """Threads that share an operator: OMP_NUM_THREADS, or the cores that the process may use."""
    return int(load().vms_num_threads())


def set_num_threads(threads: int) -> None:
    """Set how many threads share an operator, the calling one included; at least 1."""
    load().vms_set_num_threads(threads)


def storage(dtype: str) -> np.dtype[Any]:
    """The numpy dtype in which values of a model dtype are held on the host: bfloat16 as the bits, in uint16."""
    return _STORAGE[dtype]


def packed_shape(n: int, k: int, dtype: str, interleave: bool = False) -> tuple[int, ...]:
    """Shape of a packed weight of `n` output and `k` input features; `n` counts both parts of an interleaved one."""
    panels = -(-(n // 2) // (PANEL // 2)) if interleave else -(-n // PANEL)
    pairs = -(-k // 2)
    if dtype == "int8":
        return panels, PANEL * 4 + pairs * PANEL * 2  # the scales of a panel lie before its weights
    return (panels, k, PANEL) if dtype == "float32" else (panels, pairs, PANEL, 2)


def pack_weight(
    arrays: Sequence[np.ndarray[Any, Any]],
    dtype: str,
    src_dtype: str,
    interleave: bool = False,
    out: np.ndarray[Any, Any] | None = None,
    scales: Sequence[np.ndarray[Any, Any]] | None = None,
) -> np.ndarray[Any, Any]:
    """Bring a weight into the order in which the matrix products read it, reading the source once.

    Args:
        arrays: one or more `[n_i, k]`, row-major, memory-mapped or not, in `storage(src_dtype)`; they are stacked.
        dtype: of the result, by its torch name; int8 is symmetric, with a scale for each output feature.
        src_dtype: of the source.
        interleave: the two arrays are the gate and the up projection of a gated MLP.
        out: where the result goes, if it has a place already.
        scales: of int8 arrays, a float32 `[n_i]` for each: what a row's numbers are multiples of. They are packed as they are.

    Returns:
        An array of `packed_shape` in `storage(dtype)`.

    Raises:
        NotFinite: a value of the result is infinite or not a number.
    """
    k = arrays[0].shape[1]
    if any(
        array.ndim != 2 or array.shape[1] != k or array.dtype != storage(src_dtype) or not array.flags.c_contiguous
        for array in arrays
    ):
        raise ValueError("arrays to pack must be row-major [n, k] with one k, in the storage type of src_dtype")
    if interleave and (len(arrays) != 2 or arrays[0].shape != arrays[1].shape):
        raise ValueError("an interleaved weight has two parts of one shape")
    rows = [len(array) for array in arrays]
    if (src_dtype == "int8") != (scales is not None) or (scales is not None and dtype != "int8"):
        raise ValueError("int8 arrays have scales, and are packed as int8")
    if any(
        one.dtype != np.float32 or one.shape != (n,) or not one.flags.c_contiguous for one, n in zip(scales or (), rows)
    ):
        raise ValueError("there is a scale in float32 for each row")
    shape = packed_shape(sum(rows), k, dtype, interleave)
    packed = room_for_weight(shape, dtype) if out is None else out
    if packed.shape != shape or packed.dtype != storage(dtype) or not packed.flags.c_contiguous:
        raise ValueError(f"a packed weight of {sum(rows)} by {k} does not fit into what is there for it")
    all_finite = load().vms_pack_weight(
        (ctypes.c_void_p * len(arrays))(*(array.ctypes.data for array in arrays)),
        (ctypes.c_int64 * len(rows))(*rows),
        len(rows),
        k,
        _DTYPES[src_dtype],
        _DTYPES[dtype],
        interleave,
        packed.ctypes.data,
        (ctypes.c_void_p * len(arrays))(*(one.ctypes.data for one in scales)) if scales else None,
    )
    if not all_finite:
        raise NotFinite("a weight holds a value that is not a finite number")
    return packed


def room_for_weight(shape: Sequence[int], dtype: str) -> np.ndarray[Any, Any]:
    """As `zeros`, but several weights share a huge page."""
    kind = storage(dtype)
    return _arena.take(math.prod(shape) * kind.itemsize).view(kind).reshape(shape)


def zeros(shape: Sequence[int], dtype: str) -> np.ndarray[Any, Any]:
    """Zeros in `storage(dtype)` that take memory as they are written, in huge pages.

    A step reads all weights and, here and there, the cache: with pages of 4 KiB it would spend a fifth of its time on finding them.
    """
    kind = storage(dtype)
    return _pages(math.prod(shape) * kind.itemsize).view(kind).reshape(shape)


_HUGE_PAGE = 2 << 20


def _pages(size: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Bytes of new memory, from the beginning of a huge page; small pages where the system has no huge ones."""
    memory = mmap.mmap(-1, size + _HUGE_PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with contextlib.suppress(OSError, AttributeError):
        memory.madvise(mmap.MADV_HUGEPAGE)
    array = np.frombuffer(memory, np.uint8)
    start = -array.ctypes.data % _HUGE_PAGE
    return array[start : start + size]


class _Arena:
    """Gives out pieces of memory one behind the other: a weight alone would seldom fill a huge page."""

    _SIZE = 64 << 20
    _ALIGNMENT = 64

    def __init__(self) -> None:
        self._rest = np.empty(0, np.uint8)

    def take(self, size: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
        if size > self._SIZE // 2:
            return _pages(size)
        if size > len(self._rest):
            self._rest = _pages(self._SIZE)
        taken = self._rest[:size]
        self._rest = self._rest[-(-size // self._ALIGNMENT) * self._ALIGNMENT :]
        return taken


_arena = _Arena()


def take_pages(arrays: Sequence[np.ndarray[Any, Any]], begin: int, end: int, stopped: np.ndarray[Any, Any]) -> None:
    """Have the system give the memory of rows `begin` to `end` of arrays now, not as they are written, which somebody may do meanwhile.

    Arrays begin with a page, as those of `zeros` do. Returns early once the int32 `stopped[0]` is not 0.
    """
    pointers = (ctypes.c_void_p * len(arrays))(*(array.ctypes.data for array in arrays))
    row_bytes = (ctypes.c_int64 * len(arrays))(*(array[0].nbytes for array in arrays))
    load().vms_take_memory(pointers, row_bytes, len(arrays), begin, end, mmap.PAGESIZE, stopped.ctypes.data)


def drop_pages(arrays: Sequence[np.ndarray[Any, Any]]) -> None:
    """Let the system have the memory of arrays that nobody will read again; whole pages only, and small arrays keep theirs."""
    libc = ctypes.CDLL(None)
    libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    page = mmap.PAGESIZE
    for array in arrays:
        begin = -(-array.ctypes.data // page) * page
        end = (array.ctypes.data + array.nbytes) // page * page
        if end > begin:
            libc.madvise(begin, end - begin, mmap.MADV_DONTNEED)


def self_check() -> str:
    """Compute one small known answer with the library alone.

    Returns:
        The name of the instruction set that computed it.

    Raises:
        KernelError: the kernels are not built, do not load, or compute a wrong answer.
    """
    x = np.array([[1.0, 2.0, 3.0]], np.float32)
    weight = np.array([[1.0, 0.0, -1.0], [0.5, 0.25, 2.0]], np.float32)
    packed = pack_weight([weight], "float32", "float32")
    result = np.zeros((1, 2), np.float32)
    count = np.array([1], np.int32)
    arrays = [x, packed, count, result]
    shapes = [(ctypes.c_int64 * array.ndim)(*array.shape) for array in arrays]
    load().matmul(
        len(arrays),
        (ctypes.c_void_p * 4)(*(array.ctypes.data for array in arrays)),
        (ctypes.c_int * 4)(*(array.ndim for array in arrays)),
        (ctypes.POINTER(ctypes.c_int64) * 4)(*(ctypes.cast(s, ctypes.POINTER(ctypes.c_int64)) for s in shapes)),
        (ctypes.c_char_p * 4)(b"float32", b"float32", b"int32", b"float32"),
        None,
        None,
    )
    if result.tolist() != [[-2.0, 7.0]]:
        raise KernelError(
            f"The CPU kernels ({isa()}) compute {result.tolist()} where [[-2.0, 7.0]] is right: please report this."
        )
    return isa()
