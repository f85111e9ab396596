"""What a step of the network has to move and to compute, and how fast our matrix products are alone."""

from __future__ import annotations

import ctypes
import json
import time
from pathlib import Path

import numpy as np

from vllm_mindspore.kernels.cpu import library

BYTES = 2  # of a bfloat16


class Network:
    """A dense decoder with a tied LM head, as its `config.json` says."""

    def __init__(self, model: Path) -> None:
        config = json.loads((model / "config.json").read_text())
        self.layers: int = config["num_hidden_layers"]
        self.hidden: int = config["hidden_size"]
        self.middle: int = config["intermediate_size"]
        self.vocabulary: int = config["vocab_size"]
        self.heads: int = config["num_attention_heads"]
        self.kv_heads: int = config["num_key_value_heads"]
        self.head_dim: int = config["head_dim"]
        self.qkv = (self.heads * self.head_dim, self.kv_heads * self.head_dim, self.kv_heads * self.head_dim)

    @property
    def layer_weights(self) -> int:
        """Numbers in the matrices of a layer."""
        return self.hidden * (sum(self.qkv) + self.qkv[0] + 3 * self.middle)

    @property
    def head_weights(self) -> int:
        return self.hidden * self.vocabulary

    @property
    def weight_bytes(self) -> int:
        """Read by every step, whatever its batch."""
        return BYTES * (self.layers * self.layer_weights + self.head_weights)

    def cache_bytes(self, tokens: int) -> int:
        """Keys and values of that many tokens."""
        return BYTES * 2 * self.layers * self.kv_heads * self.head_dim * tokens

    def decode(self, batch: int, context: float) -> dict[str, float]:
        """Bytes and floating point operations of a step with a new token for each of `batch` sequences."""
        products = 2 * batch * (self.layers * self.layer_weights + self.head_weights)
        attention = 4 * batch * context * self.layers * self.heads * self.head_dim
        return {"bytes": self.weight_bytes + self.cache_bytes(1) * batch * context, "flops": products + attention}

    def prefill(self, count: int, length: int) -> dict[str, float]:
        """The same for the prompts of one step; the LM head sees the last token of each."""
        products = 2 * count * (length * self.layers * self.layer_weights + self.head_weights)
        attention = 4 * count * length * (length + 1) / 2 * self.layers * self.heads * self.head_dim
        return {"bytes": self.weight_bytes + self.cache_bytes(count * length), "flops": products + attention}


class Products:
    """The matrix products of one layer, on `rows` rows, as a step launches them: one after the other, without MindSpore, on rows as the operators between them leave them."""

    def __init__(self, network: Network, rows: int, threads: int) -> None:
        library.set_num_threads(threads)
        self._kernels = library.load()
        self._layers = network.layers
        self.flops = 2 * rows * network.layer_weights
        random = np.random.default_rng(0)
        count = np.array([rows], np.int32)
        self._kept: list[np.ndarray] = []  # a capture refers to the memory of what no operator wrote

        def rounded(*shape: int) -> np.ndarray:
            """Numbers as a network has them, as bfloat16 bits: what is multiplied may decide about the clock."""
            return (random.standard_normal(shape, np.float32) * 0.05).view(np.uint32).__rshift__(16).astype(np.uint16)

        def product(name: str, x: np.ndarray, parts: list[int], outputs: list[int]) -> list[np.ndarray]:
            weights = [rounded(part, x.shape[1]) for part in parts]
            packed = library.pack_weight(weights, "bfloat16", "bfloat16", interleave=name == "matmul_swiglu")
            results = [np.empty((rows, n), np.float32) for n in outputs]
            arrays = [x, packed, count, *results]
            self._kept += arrays
            if status := _call(name, arrays):
                raise RuntimeError(f"{name} returned {status}")
            return results

        def written_before(width: int) -> np.ndarray:
            """Rows as a norm or attention leaves them, in memory that begins with a cache line as a capture's does."""
            x = library.zeros((rows, width), "bfloat16" if rounds else "float32")
            x[:] = rounded(rows, width) if rounds else random.standard_normal((rows, width), np.float32)
            return x

        hidden, middle, rounds = network.hidden, network.middle, _rounds_rows()
        self._kernels.vms_capture_begin()
        product("matmul", written_before(hidden), list(network.qkv), list(network.qkv))
        product("matmul", written_before(network.qkv[0]), [hidden], [hidden])
        (gated,) = product("matmul_swiglu", written_before(hidden), [middle, middle], [middle])
        (result,) = product("matmul", gated, [hidden], [hidden])
        self._capture = self._kernels.vms_capture_end((ctypes.c_void_p * 1)(result.ctypes.data), 1)
        self.flops_per_second()  # what is touched for the first time is slow

    def flops_per_second(self) -> float:
        """Over as many layers as a step has: the first alone finds cores that have done nothing before it."""
        started = time.perf_counter()
        for _ in range(self._layers):
            if status := self._kernels.vms_capture_launch(self._capture):
                raise RuntimeError(f"a product returned {status}")
        return self._layers * self.flops / (time.perf_counter() - started)


def _rounds_rows() -> bool:
    """Whether products take rows that are rounded already: operators before them then write such."""
    weight = library.pack_weight([np.zeros((32, 32), np.uint16)], "bfloat16", "bfloat16")
    rows, result = library.zeros((32, 32), "bfloat16"), library.zeros((32, 32), "float32")
    return not _call("matmul", [rows, weight, np.ones(1, np.int32), result])


def _call(name: str, arrays: list[np.ndarray]) -> int:
    """An operator of the library, as MindSpore calls it; 0, or what it refuses with."""
    n = len(arrays)
    shapes = [(ctypes.c_int64 * array.ndim)(*array.shape) for array in arrays]
    dtypes = ["bfloat16" if array.dtype == np.uint16 else str(array.dtype) for array in arrays]
    arguments = (
        n,
        (ctypes.c_void_p * n)(*(array.ctypes.data for array in arrays)),
        (ctypes.c_int * n)(*(array.ndim for array in arrays)),
        (ctypes.POINTER(ctypes.c_int64) * n)(*(ctypes.cast(s, ctypes.POINTER(ctypes.c_int64)) for s in shapes)),
        (ctypes.c_char_p * n)(*(dtype.encode() for dtype in dtypes)),
        None,
        None,
    )
    return int(getattr(library.load(), name)(*arguments))
