"""The op vocabulary of the networks.

Names, arguments and meaning are those of MindSpore's inference primitives; an op is made once, in a Cell's `__init__`, and called in the
`construct` of a static graph. What is added to the primitives' arguments is a last one: the true count of rows (`num_tokens`,
`num_seqs` or `num_logits`, int32 `[1]`), as the tensors are padded to a bucket. Kernels compute that many rows; the others are
undefined.

T tokens, S sequences, L rows of logits (padded); H heads, KV KV heads of D floats; P positions, R rotary floats. Activations are float32.
Weights and KV caches have the model's dtype; weights are packed by `pack_weight`, opaque to the networks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor
from mindspore.common import np_dtype

from vllm_mindspore.kernels.cpu import library

Shape = Sequence[int]


def _custom(name: str, shapes: Any, *dtypes: Any) -> Any:
    """An operator of the CPU library; `shapes` maps the shapes of its inputs to those of its outputs."""
    inferred = dtypes if len(dtypes) > 1 else dtypes[0]
    return ms.ops.Custom(f"{library.path()}:{name}", shapes, lambda *_: inferred, func_type="aot")


def _constant(value: float, dtype: Any = np.float32) -> Tensor:
    return Tensor(np.array([value], dtype))


class Embedding:
    """Rows of a packed weight: `(weight, token_ids [T], num_tokens) -> [T, hidden]`; zeros for an id that the weight lacks."""

    def __init__(self, hidden_size: int) -> None:
        self._op = _custom("embedding", lambda weight, ids, count: [ids[0], hidden_size], ms.float32)

    def __call__(self, weight: Tensor, token_ids: Tensor, num_tokens: Tensor) -> Tensor:
        return self._op(weight, token_ids, num_tokens)
