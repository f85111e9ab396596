"""The op vocabulary of the networks.

Names, arguments and meaning are those of MindSpore's inference primitives. An op is a Cell, made once in a network's `__init__` and
called in the `construct` of a static graph. What is added to the primitives' arguments is a last one: the true count of
rows (`num_tokens`, `num_seqs` or `num_logits`, int32 `[1]`), as the tensors are padded to a bucket. Kernels compute that many rows; the
others are undefined.

T tokens, S sequences, L rows of logits (padded); H heads, KV KV heads of D floats; P positions, R rotary floats; E experts, of which
K are chosen for a token. Activations are float32. KV caches have the model's dtype, and so have
weights, or they are int8; they are packed by `pack_weight` and opaque to the networks.
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


class MatMulArgMax(nn.Cell):
    """`MatMul` and MindSpore's `Argmax` of its rows: `(x [L, K], weight, num_logits) -> (logits [L, N], int32 [L])`.

    The lowest index wins among equals.
    """

    def __init__(self, out_features: int) -> None:
        super().__init__()
        self.op = _custom("matmul_argmax", lambda x, *_: ([x[0], out_features], [x[0]]), ms.float32, ms.int32)

    def construct(self, x: Tensor, weight: Tensor, num_logits: Tensor) -> tuple[Tensor, Tensor]:
        return self.op(x, weight, num_logits)


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

    `(key [T, KV * D], value [T, KV * D], key_cache, value_cache [blocks, block_size, KV, D], slot_mapping [T], num_tokens) -> [1]`. Within a
    block the cache lies as `PagedAttention` reads it best on the CPU, see docs/kernels.md; whole blocks may be copied. Slot -1 writes
    nothing. The result holds nothing: an op that reads the caches afterwards gets one of its other inputs through
    `ms.ops.depend(input, result)`. (A dependence put on the cache itself is dropped: it is a Parameter.)
    """

    _op_name = "reshape_and_cache"

    def __init__(self) -> None:
        super().__init__()
        self.op = _custom(self._op_name, lambda *_: [1], ms.float32)

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


class CacheLatents(ReshapeAndCache):
    """The same for the latents and the rotated keys of latent attention, which differ in D and lie row by row."""

    _op_name = "cache_latents"


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


class TransposeBatchMatmulTranspose(nn.Cell):
    """Each head's floats times a matrix of its own: `(x [T, H * K], weight, num_tokens) -> [T, H * N]`.

    MindSpore's primitive of this name with `perm_in` and `perm_out` (1, 0, 2), which take the heads to the front and back. The weight
    is a `PackedWeights` of H matrices `[N, K]`.
    """

    def __init__(self, head_num: int, out_features: int) -> None:
        super().__init__()
        width = head_num * out_features
        self.op = _custom("transpose_batch_matmul_transpose", lambda x, *_: [x[0], width], ms.float32)

    def construct(self, x: Tensor, weight: Tensor, num_tokens: Tensor) -> Tensor:
        return self.op(x, weight, num_tokens)


class Mla(nn.Cell):
    """Causal multi-head latent attention over the paged cache, for prefill, chunked prefill and decode alike.

    `(query [T, H * C], q_rope [T, H * R], kv_cache [blocks, block_size, 1, C], k_rope [blocks, block_size, 1, R], block_tables [S, B],
    context_lens [S], q_seq_lens [S], num_seqs) -> [T, H * C]`. One key, `kv_cache` and `k_rope` side by side, serves all heads, and
    `kv_cache` is its value. Rows, sequences and what a row sees are as in `PagedAttention`. MindSpore's `Mla` without quantisation, whose
    second result, the logarithm of the softmax's denominator, is left out.
    """

    def __init__(self, scale_value: float) -> None:
        super().__init__()
        self.scale = _constant(scale_value)
        self.op = _custom("mla", lambda query, *_: query, ms.float32)

    def construct(
        self,
        query: Tensor,
        q_rope: Tensor,
        kv_cache: Tensor,
        k_rope: Tensor,
        block_tables: Tensor,
        context_lens: Tensor,
        q_seq_lens: Tensor,
        num_seqs: Tensor,
    ) -> Tensor:
        return self.op(query, q_rope, kv_cache, k_rope, block_tables, context_lens, q_seq_lens, self.scale, num_seqs)


def _gating(name: str, k: int) -> Any:
    return _custom(name, lambda logits, *_: ([logits[0], k], [logits[0], k]), ms.float32, ms.int32)


class FusedAddTopKDiv(nn.Cell):
    """DeepSeek-V3's choice of experts: `(x [T, E], add_num [E], num_tokens) -> (weights [T, K], expert_idx int32 [T, K])`.

    Of the `group_topk` of `group_num` groups of experts whose `n` best `sigmoid(x) + add_num` have the largest sums, the `k` experts
    with the largest such score, best first; weights are their `sigmoid(x)`, over their sum if `is_norm`, times `scale`. The lowest index
    wins among equals, and experts of other groups are never chosen. MindSpore's primitive with `activate_type` 0.
    """

    def __init__(self, group_num: int, group_topk: int, n: int, k: int, is_norm: bool, scale: float) -> None:
        super().__init__()
        settings = group_num, group_topk, n, int(is_norm)
        self.group_num, self.group_topk, self.n, self.is_norm = (_constant(v, np.int32) for v in settings)
        self.scale = _constant(scale)
        self.op = _gating("fused_add_topk_div", k)

    def construct(self, x: Tensor, add_num: Tensor, num_tokens: Tensor) -> tuple[Tensor, Tensor]:
        return self.op(x, add_num, self.group_num, self.group_topk, self.n, self.is_norm, self.scale, num_tokens)


class MoeGatingTopKSoftmax(nn.Cell):
    """The `k` experts with the largest softmax, best first: `(x [T, E], num_tokens) -> (y [T, K], expert_idx int32 [T, K])`.

    MindSpore's primitive without its `row_idx`, fused with what DeepSeek-V2 and Qwen do around it: experts only of the `group_topk`
    groups with the largest single score (MindSpore's `GroupTopk` with `k_inner` 1), weights over their sum if `is_norm`, times `scale`.
    The lowest index wins among equals.
    """

    def __init__(
        self, k: int, group_num: int = 1, group_topk: int = 1, is_norm: bool = False, scale: float = 1.0
    ) -> None:
        super().__init__()
        settings = group_num, group_topk, 1, int(is_norm)
        self.group_num, self.group_topk, self.k_inner, self.is_norm = (_constant(v, np.int32) for v in settings)
        self.scale = _constant(scale)
        self.op = _gating("moe_gating_topk_softmax", k)

    def construct(self, x: Tensor, num_tokens: Tensor) -> tuple[Tensor, Tensor]:
        return self.op(x, self.group_num, self.group_topk, self.k_inner, self.is_norm, self.scale, num_tokens)


class MoeInitRouting(nn.Cell):
    """Rows sorted by expert: `(x [T, C], expert_idx [T, K], num_tokens) -> (expanded_x [T * K, C], expanded_row_idx [T * K], expert_tokens [E])`.

    Row `expanded_row_idx[t * K + i]` of `expanded_x` is token t for its i-th expert. `expert_tokens` counts the rows of an expert and
    of all before it. MindSpore's `MoeInitRoutingV2` without dropping (`active_num`, `expert_capacity` and `drop_pad_mode` 0,
    `expert_tokens_count_or_cumsum_flag` 1).
    """

    def __init__(self, expert_num: int) -> None:
        super().__init__()

        def shapes(x: Sequence[int], idx: Sequence[int], _: Any) -> Any:
            return [x[0] * idx[1], x[1]], [x[0] * idx[1]], [expert_num]

        self.op = _custom("moe_init_routing", shapes, ms.float32, ms.int32, ms.int32)

    def construct(self, x: Tensor, expert_idx: Tensor, num_tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.op(x, expert_idx, num_tokens)


class GroupedMatmul(nn.Cell):
    """Rows times the matrix of their expert: `(x [M, K], weight, group_list [E]) -> [M, N]`.

    Expert e has the rows from `group_list[e - 1]` to `group_list[e]`; an expert without rows is not read. The weight is a
    `PackedWeights` of E matrices `[N, K]`. MindSpore's `GroupedMatmulV4` with `split_item` 3, `group_type` 0 and `group_list_type` 0.
    """

    def __init__(self, out_features: int) -> None:
        super().__init__()
        self.op = _custom("grouped_matmul", lambda x, *_: [x[0], out_features], ms.float32)

    def construct(self, x: Tensor, weight: Tensor, group_list: Tensor) -> Tensor:
        return self.op(x, weight, group_list)


class GroupedMatmulSwiglu(nn.Cell):
    """`MatMulSwiglu` with the gate and the up projection of each row's expert: `(x [M, K], weight, group_list [E]) -> [M, I]`.

    The weight is a `PackedWeights` of E times `[gate, up]`, interleaved; rows and experts are as in `GroupedMatmul`.
    """

    def __init__(self, out_features: int) -> None:
        super().__init__()
        self.op = _custom("grouped_matmul_swiglu", lambda x, *_: [x[0], out_features], ms.float32)

    def construct(self, x: Tensor, weight: Tensor, group_list: Tensor) -> Tensor:
        return self.op(x, weight, group_list)


class MoeTokenUnpermute(nn.Cell):
    """What the experts of a token answer, summed with its weights.

    `(permuted_tokens [T * K, C], sorted_indices [T * K], probs [T, K], num_tokens) -> [T, C]`, the indices being `MoeInitRouting`'s
    `expanded_row_idx`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.op = _custom("moe_token_unpermute", lambda x, _, probs, __: [probs[0], x[1]], ms.float32)

    def construct(self, permuted_tokens: Tensor, sorted_indices: Tensor, probs: Tensor, num_tokens: Tensor) -> Tensor:
        return self.op(permuted_tokens, sorted_indices, probs, num_tokens)


class Add(nn.Cell):
    """`(x1 [T, C], x2 [T, C], num_tokens) -> x1 + x2 [T, C]`."""

    def __init__(self) -> None:
        super().__init__()
        self.op = _custom("add", lambda x, *_: x, ms.float32)

    def construct(self, x1: Tensor, x2: Tensor, num_tokens: Tensor) -> Tensor:
        return self.op(x1, x2, num_tokens)


class SigmoidMul(nn.Cell):
    """MindSpore's `Sigmoid` of a gate, and `Mul` with it: `(x [T, C], gate [T, 1], num_tokens) -> sigmoid(gate) * x [T, C]`."""

    def __init__(self) -> None:
        super().__init__()
        self.op = _custom("sigmoid_mul", lambda x, *_: x, ms.float32)

    def construct(self, x: Tensor, gate: Tensor, num_tokens: Tensor) -> Tensor:
        return self.op(x, gate, num_tokens)


class Gather(nn.Cell):
    """Rows of `x`: `(x [T, C], indices [L], num_logits) -> [L, C]`."""

    def __init__(self) -> None:
        super().__init__()
        self.op = _custom("gather", lambda x, indices, _: [indices[0], x[1]], ms.float32)

    def construct(self, x: Tensor, indices: Tensor, num_logits: Tensor) -> Tensor:
        return self.op(x, indices, num_logits)


def capture(network: nn.Cell, inputs: Sequence[Tensor]) -> LaunchCapture:
    """The launches of a network's graph, to be made again on what the inputs then hold; see `LaunchCapture`.

    What `ms.runtime.set_kernel_launch_capture` is on Ascend.
    """
    return LaunchCapture(network, inputs)


def pack_weight(
    arrays: Sequence[np.ndarray[Any, Any]],
    dtype: str,
    src_dtype: str,
    interleave: bool = False,
    scales: Sequence[np.ndarray[Any, Any]] | None = None,
) -> Tensor:
    """A weight in the order in which the kernels read it, as a tensor of `dtype`; see `library.pack_weight`."""
    return _tensor(library.pack_weight(arrays, dtype, src_dtype, interleave, scales=scales), dtype)


class PackedWeights:
    """Weights of one shape for `GroupedMatmul`, `GroupedMatmulSwiglu` or `TransposeBatchMatmulTranspose`, packed one after the other.

    Args:
        groups: how many.
        n: output features of each; both parts of an interleaved one.
        k: input features.
        dtype: by its torch name.
        interleave: each has a gate and an up projection.
    """

    def __init__(self, groups: int, n: int, k: int, dtype: str, interleave: bool = False) -> None:
        self._array = library.room_for_weight((groups, *library.packed_shape(n, k, dtype, interleave)), dtype)
        self._dtype, self._interleave = dtype, interleave

    def put(
        self,
        group: int,
        arrays: Sequence[np.ndarray[Any, Any]],
        src_dtype: str,
        scales: Sequence[np.ndarray[Any, Any]] | None = None,
    ) -> None:
        """Pack the weight of one group; see `library.pack_weight`."""
        library.pack_weight(arrays, self._dtype, src_dtype, self._interleave, out=self._array[group], scales=scales)

    def tensor(self) -> Tensor:
        """`[groups, ...]`, once all are there."""
        return _tensor(self._array, self._dtype)


def cache_array(num_blocks: int, block_size: int, kv_head_num: int, head_dim: int, dtype: str) -> np.ndarray[Any, Any]:
    """Zeros `[num_blocks, block_size, kv_head_num, head_dim]` for a KV cache, which take memory as they are written."""
    return library.zeros((num_blocks, block_size, kv_head_num, head_dim), dtype)


def take_memory(arrays: Sequence[np.ndarray[Any, Any]], begin: int, end: int, stopped: np.ndarray[Any, Any]) -> None:
    """Have the system give the memory of blocks `begin` to `end` of `cache_array`s before steps write them; what they hold stays.

    Returns early once the int32 `stopped[0]` is not 0.
    """
    library.take_pages(arrays, begin, end, stopped)


def cache_tensor(array: np.ndarray[Any, Any], dtype: str) -> Tensor:
    """A KV cache as the operators take it, which shares the memory of a `cache_array`."""
    return _tensor(array, dtype)


def parameter(tensor: Tensor, name: str) -> Parameter:
    """A Parameter that shares the memory of a tensor: `Parameter(tensor)` would copy it."""
    small = np.zeros(1, tensor.asnumpy().dtype)  # not of a cast, which takes MindSpore a millisecond
    holder = Parameter(Tensor.from_numpy(small), name=name, requires_grad=False)
    holder.set_data(tensor, slice_shape=True)
    holder.memory = tensor  # set_data shares the memory without keeping it alive
    return holder


def forget(arrays: Sequence[np.ndarray[Any, Any]]) -> None:
    """Take what was read of a mapped file out of this process's memory; reading it again brings it back from the file.

    Arrays that are no mapping are zeros afterwards.
    """
    library.drop_pages(arrays)


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
