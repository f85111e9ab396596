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
    """The matrix products of one layer, on `rows` rows at once, called without MindSpore."""

    def __init__(self, network: Network, rows: int, threads: int) -> None:
        library.set_num_threads(threads)
        self.flops = 2 * rows * network.layer_weights
        random = np.random.default_rng(0)

        def rounded(*shape: int) -> np.ndarray:
            """Numbers as a network has them, as bfloat16 bits: what is multiplied may decide about the clock."""
            return (random.standard_normal(shape, np.float32) * 0.05).view(np.uint32).__rshift__(16).astype(np.uint16)

        def operator(name: str, k: int, parts: list[int], outputs: list[int]) -> tuple[str, list[np.ndarray]]:
            weights = [rounded(part, k) for part in parts]
            packed = library.pack_weight(weights, "bfloat16", "bfloat16", interleave=name == "matmul_swiglu")
            x = random.standard_normal((rows, k), np.float32)
            return name, [x, packed, np.array([rows], np.int32), *(np.empty((rows, n), np.float32) for n in outputs)]

        hidden, middle = network.hidden, network.middle
        self._operators = [
            operator("matmul", hidden, list(network.qkv), list(network.qkv)),
            operator("matmul", network.qkv[0], [hidden], [hidden]),
            operator("matmul_swiglu", hidden, [middle, middle], [middle]),
            operator("matmul", middle, [hidden], [hidden]),
        ]
        self.flops_per_second()  # what is touched for the first time is slow

    def flops_per_second(self) -> float:
        return self.flops / sum(_seconds(name, arrays) for name, arrays in self._operators)


def _seconds(name: str, arrays: list[np.ndarray]) -> float:
    """For one call of an operator of the library, as MindSpore makes it."""
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
    function = getattr(library.load(), name)
    started = time.perf_counter()
    status = function(*arguments)
    seconds = time.perf_counter() - started
    if status:
        raise RuntimeError(f"{name} returned {status}")
    return seconds
