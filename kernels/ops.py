"""The op vocabulary of the networks.

Names, arguments and meaning are those of MindSpore's inference primitives. An op is a Cell, made once in a network's `__init__` and
called in the `construct` of a static graph. What is added to the primitives' arguments is a last one: the true count of
rows (`num_tokens`, `num_seqs` or `num_logits`, int32 `[1]`), as the tensors are padded to a bucket. Kernels compute that many rows; the
others are undefined.

T tokens, S sequences, L rows of logits (padded); H heads, KV KV heads of D floats; P positions, R rotary floats. Activations
are float32. Weights and KV caches have the model's dtype; weights are packed by `pack_weight` and opaque to the networks.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Callable

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn
from mindspore.common import np_dtype

from vllm_mindspore.kernels.cpu import library
from vllm_mindspore.kernels.cpu.capture import LaunchCapture as LaunchCapture

MAX_OUTPUTS = 4
"""Outputs over which one `MatMul` can spread its features."""


def _custom(name: str, shapes: Any, *dtypes: Any) -> Any:
    """An operator of the CPU library; `shapes` maps the shapes of its inputs to those of its outputs."""
    inferred = dtypes if len(dtypes) > 1 else dtypes[0]
    return ms.ops.Custom(f"{library.path()}:{name}", shapes, lambda *_: inferred, func_type="aot")


def _constant(value: float, dtype: Any = np.float32) -> Tensor:
    return Tensor(np.array([value], dtype))


class Embedding(nn.Cell):
    """Rows of a packed weight; zeros for an id that it lacks: `(weight, token_ids [T], num_tokens) -> [T, hidden]`."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.op = _custom("embedding", lambda weight, ids, count: [ids[0], hidden_size], ms.float32)

    def construct(self, weight: Tensor, token_ids: Tensor, num_tokens: Tensor) -> Tensor:
        return self.op(weight, token_ids, num_tokens)


class RmsNorm(nn.Cell):
    """`x / sqrt(mean(x^2) + epsilon) * gamma`: `(x [T, C], gamma [N], num_tokens) -> [T, C]`.

    N divides C: each N floats of a row are normalised on their own, as the query and key norms of Qwen3 need it.
    """

    def __init__(self, epsilon: float) -> None:
        super().__init__()
        self.epsilon = _constant(epsilon)
        self.op = _custom("rms_norm", lambda x, *_: x, ms.float32)

    def construct(self, x: Tensor, gamma: Tensor, num_tokens: Tensor) -> Tensor:
        return self.op(x, gamma, self.epsilon, num_tokens)


class AddRmsNorm(nn.Cell):
    """`RmsNorm` of a sum, and the sum: `(x1 [T, C], x2 [T, C], gamma [C], num_tokens) -> (y [T, C], x1 + x2 [T, C])`."""

    def __init__(self, epsilon: float) -> None:
        super().__init__()
        self.epsilon = _constant(epsilon)
        self.op = _custom("add_rms_norm", lambda x, *_: (x, x), ms.float32, ms.float32)

    def construct(self, x1: Tensor, x2: Tensor, gamma: Tensor, num_tokens: Tensor) -> tuple[Tensor, Tensor]:
        return self.op(x1, x2, gamma, self.epsilon, num_tokens)


class MatMul(nn.Cell):
    """`x @ weight.T + bias`: `(x [T, K], weight, [bias [N],] num_tokens) -> [T, N]`.

    With several `out_features` the product is spread over as many outputs `[T, n_i]`, N being their sum.
    """

    def __init__(self, out_features: Sequence[int], has_bias: bool = False) -> None:
        super().__init__()
        widths = tuple(out_features)
        if not 0 < len(widths) <= MAX_OUTPUTS:
            raise ValueError(f"out_features has {len(widths)} parts, a MatMul spreads over 1 to {MAX_OUTPUTS}")

        def shapes(x: Sequence[int], *_: Any) -> Any:
            outputs = tuple([x[0], width] for width in widths)
            return outputs if len(outputs) > 1 else outputs[0]

        self.op = _custom("matmul_bias" if has_bias else "matmul", shapes, *[ms.float32] * len(widths))

    def construct(self, x: Tensor, weight: Tensor, *bias_and_count: Tensor) -> Any:
        return self.op(x, weight, *bias_and_count)


class MatMulSwiglu(nn.Cell):
    """`silu(x @ gate.T + gate_bias) * (x @ up.T + up_bias)`: `(x [T, K], weight, [bias [2 * I],] num_tokens) -> [T, I]`.

    The weight is `pack_weight([gate, up], interleave=True)`; the bias is gate's, then up's.
    """

    def __init__(self, out_features: int, has_bias: bool = False) -> None:
        super().__init__()
        name = "matmul_swiglu_bias" if has_bias else "matmul_swiglu"
        self.op = _custom(name, lambda x, *_: [x[0], out_features], ms.float32)

    def construct(self, x: Tensor, weight: Tensor, *bias_and_count: Tensor) -> Tensor:
        return self.op(x, weight, *bias_and_count)


class ApplyRotaryPosEmb(nn.Cell):
    """Rotate queries and keys by their positions.

    `(query [T, H * D], key [T, KV * D], cos [P, R], sin [P, R], position_ids [T], num_tokens) -> (query, key)`. The
    first R floats of each head are rotated, float i with float i + R / 2 (the form of NeoX and of Hugging Face's Llama); each
    row of `cos` and `sin` holds its R / 2 values twice.
    """

    def __init__(self, head_dim: int) -> None:
        super().__init__()
        self.head_dim = _constant(head_dim, np.int32)
        self.op = _custom("apply_rotary_pos_emb", lambda query, key, *_: (query, key), ms.float32, ms.float32)

    def construct(
        self, query: Tensor, key: Tensor, cos: Tensor, sin: Tensor, position_ids: Tensor, num_tokens: Tensor
    ) -> tuple[Tensor, Tensor]:
        return self.op(query, key, cos, sin, position_ids, self.head_dim, num_tokens)


class ReshapeAndCache(nn.Cell):
    """Write keys and values into their cache slots, in place.

    `(key [T, KV * D], value [T, KV * D], key_cache, value_cache [blocks, block_size, KV, D], slot_mapping [T], num_tokens) -> [1]`. Slot
    -1 writes nothing. The result holds nothing: an op that reads the caches afterwards gets one of its other inputs through
    `ms.ops.depend(input, result)`. (A dependence put on the cache itself is dropped: it is a Parameter.)
    """

    def __init__(self) -> None:
        super().__init__()
        self.op = _custom("reshape_and_cache", lambda *_: [1], ms.float32)

    def construct(
        self,
        key: Tensor,
        value: Tensor,
        key_cache: Tensor,
        value_cache: Tensor,
        slot_mapping: Tensor,
        num_tokens: Tensor,
    ) -> Tensor:
        return self.op(key, value, key_cache, value_cache, slot_mapping, num_tokens)


class PagedAttention(nn.Cell):
    """Causal attention over the paged cache, for prefill, chunked prefill and decode alike.

    `(query [T, H * D], key_cache, value_cache [blocks, block_size, KV, D], block_tables [S, B], context_lens [S], q_seq_lens [S],
    num_seqs) -> [T, H * D]`. Sequence s owns `q_seq_lens[s]` consecutive rows of `query`, which are the last of its `context_lens[s]`
    positions; each row sees the keys up to its own, the last `sliding_window` of them if that is not 0.
    """

    def __init__(self, head_num: int, scale_value: float, kv_head_num: int, sliding_window: int = 0) -> None:
        super().__init__()
        if head_num % kv_head_num:
            raise ValueError(f"head_num {head_num} is not a multiple of kv_head_num {kv_head_num}")
        self.scale = _constant(scale_value)
        self.sliding_window = _constant(sliding_window, np.int32)
        self.op = _custom("paged_attention", lambda query, *_: query, ms.float32)

    def construct(
        self,
        query: Tensor,
        key_cache: Tensor,
        value_cache: Tensor,
        block_tables: Tensor,
        context_lens: Tensor,
        q_seq_lens: Tensor,
        num_seqs: Tensor,
    ) -> Tensor:
        return self.op(
            query,
            key_cache,
            value_cache,
            block_tables,
            context_lens,
            q_seq_lens,
            self.scale,
            self.sliding_window,
            num_seqs,
        )


class Gather(nn.Cell):
    """Rows of `x`: `(x [T, C], indices [L], num_logits) -> [L, C]`."""

    def __init__(self) -> None:
        super().__init__()
        self.op = _custom("gather", lambda x, indices, _: [indices[0], x[1]], ms.float32)

    def construct(self, x: Tensor, indices: Tensor, num_logits: Tensor) -> Tensor:
        return self.op(x, indices, num_logits)


class ArgMax(nn.Cell):
    """Index of the largest of each row, the lowest among equals: `(logits [L, V], num_logits) -> int32 [L]`."""

    def __init__(self) -> None:
        super().__init__()
        self.op = _custom("argmax", lambda logits, _: [logits[0]], ms.int32)

    def construct(self, logits: Tensor, num_logits: Tensor) -> Tensor:
        return self.op(logits, num_logits)


def capture(network: nn.Cell, inputs: Sequence[Tensor]) -> LaunchCapture:
    """The launches of a network's graph, to be made again on what the inputs then hold; see `LaunchCapture`.

    What `ms.runtime.set_kernel_launch_capture` is on Ascend.
    """
    return LaunchCapture(network, inputs)


def pack_weight(arrays: Sequence[np.ndarray[Any, Any]], dtype: str, src_dtype: str, interleave: bool = False) -> Tensor:
    """A weight in the order in which the kernels read it, as a tensor of `dtype`; see `library.pack_weight`."""
    return _tensor(library.pack_weight(arrays, dtype, src_dtype, interleave), dtype)


def cache_array(num_blocks: int, block_size: int, kv_head_num: int, head_dim: int, dtype: str) -> np.ndarray[Any, Any]:
    """Zeros `[num_blocks, block_size, kv_head_num, head_dim]` for a KV cache, which take memory as they are written."""
    return library.zeros((num_blocks, block_size, kv_head_num, head_dim), dtype)


def cache_tensor(array: np.ndarray[Any, Any], dtype: str) -> Tensor:
    """A KV cache as the operators take it, which shares the memory of a `cache_array`."""
    return _tensor(array, dtype)


def parameter(tensor: Tensor, name: str) -> Parameter:
    """A Parameter that shares the memory of a tensor: `Parameter(tensor)` would copy it."""
    holder = Parameter(Tensor.from_numpy(np.zeros(1, np.float32)).astype(tensor.dtype), name=name, requires_grad=False)
    holder.set_data(tensor, slice_shape=True)
    holder.memory = tensor  # set_data shares the memory without keeping it alive
    return holder


def release(parameters: Iterable[Parameter]) -> Callable[[], None]:
    """What gives the memory of parameters back to the system, to be called when no graph will run on them again.

    MindSpore 2.7 keeps the parameters of a compiled graph for the life of the process. Their addresses stay valid; what is
    behind them becomes zeros that take no memory.
    """
    memories: list[Any] = [getattr(parameter, "memory", None) for parameter in parameters]
    # Packed weights and caches; the small rest is let be.
    arrays = [memory.array for memory in memories if hasattr(memory, "array")]
    return lambda: library.drop_pages(arrays)


def _tensor(array: np.ndarray[Any, Any], dtype: str) -> Tensor:
    tensor = Tensor.from_numpy(array.view(np_dtype.bfloat16) if dtype == "bfloat16" else array)
    tensor.array = array
    return tensor
