"""A network of one layer that uses every operator once or more and returns all that they compute."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn

from vllm_mindspore.kernels import ops

HIDDEN, HEADS, KV_HEADS, HEAD_DIM, MIDDLE, VOCABULARY = 40, 4, 2, 12, 37, 70
WIDTHS = (HEADS * HEAD_DIM, KV_HEADS * HEAD_DIM, KV_HEADS * HEAD_DIM)
WINDOW, EPSILON = 5, 1e-5
SCALE = HEAD_DIM**-0.5


class EveryOp(nn.Cell):
    """Its parameters share the memory of the arrays that it is given."""

    def __init__(self, vectors: Mapping[str, np.ndarray], packed: Mapping[str, Tensor], caches: list[Tensor]) -> None:
        super().__init__()
        for name, tensor in {**{n: Tensor.from_numpy(v) for n, v in vectors.items()}, **packed}.items():
            setattr(self, name, ops.parameter(tensor, name))
        self.key_cache, self.value_cache = (ops.parameter(c, n) for c, n in zip(caches, ("key_cache", "value_cache")))
        self.embed = ops.Embedding(HIDDEN)
        self.norm = ops.RmsNorm(EPSILON)
        self.project_qkv = ops.MatMul(WIDTHS, has_bias=True)
        self.rotate = ops.ApplyRotaryPosEmb(HEAD_DIM)
        self.write_cache = ops.ReshapeAndCache()
        self.attend = ops.PagedAttention(HEADS, SCALE, KV_HEADS, WINDOW)
        self.project = ops.MatMul([HIDDEN])
        self.add_norm = ops.AddRmsNorm(EPSILON)
        self.swiglu = ops.MatMulSwiglu(MIDDLE)
        self.swiglu_bias = ops.MatMulSwiglu(MIDDLE, has_bias=True)
        self.project_biased = ops.MatMul([HIDDEN], has_bias=True)
        self.head = ops.MatMulArgMax(VOCABULARY)
        self.gather = ops.Gather()

    def construct(
        self,
        token_ids: Tensor,
        position_ids: Tensor,
        slot_mapping: Tensor,
        block_tables: Tensor,
        context_lens: Tensor,
        q_seq_lens: Tensor,
        logits_indices: Tensor,
        num_tokens: Tensor,
        num_seqs: Tensor,
        num_logits: Tensor,
    ) -> Any:
        embedded = self.embed(self.vocabulary, token_ids, num_tokens)
        normed = self.norm(embedded, self.gamma, num_tokens)
        query, key, value = self.project_qkv(normed, self.qkv, self.qkv_bias, num_tokens)
        query_normed = self.norm(query, self.head_gamma, num_tokens)
        query_turned, key_turned = self.rotate(query_normed, key, self.cos, self.sin, position_ids, num_tokens)
        written = self.write_cache(key_turned, value, self.key_cache, self.value_cache, slot_mapping, num_tokens)
        ordered = ms.ops.depend(query_turned, written)
        attended = self.attend(
            ordered, self.key_cache, self.value_cache, block_tables, context_lens, q_seq_lens, num_seqs
        )
        projected = self.project(attended, self.output, num_tokens)
        second_normed, residual = self.add_norm(projected, embedded, self.gamma, num_tokens)
        gated = self.swiglu(second_normed, self.gate_up, num_tokens)
        gated_biased = self.swiglu_bias(second_normed, self.gate_up, self.gate_up_bias, num_tokens)
        down = self.project_biased(gated, self.down, self.down_bias, num_tokens)
        last = self.gather(down, logits_indices, num_logits)
        logits, greedy = self.head(last, self.vocabulary, num_logits)
        return (
            *(embedded, normed, query, key, value, query_normed, query_turned, key_turned, attended, projected),
            *(second_normed, residual, gated, gated_biased, down, last, logits, greedy),
        )


NAMES = [
    "embedded",
    "normed",
    "query",
    "key",
    "value",
    "query_normed",
    "query_turned",
    "key_turned",
    "attended",
    "projected",
    "second_normed",
    "residual",
    "gated",
    "gated_biased",
    "down",
    "last",
    "logits",
    "greedy",
]


class Holder(nn.Cell):
    """A graph that only reads one parameter."""

    def __init__(self, parameter: ms.Parameter) -> None:
        super().__init__()
        self.held = parameter

    def construct(self, x: Tensor) -> Tensor:
        return self.held + x
