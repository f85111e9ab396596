"""How a network asks for its weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol


class Weights(Protocol):
    """A checkpoint, or whatever stands for one. Names are those of Hugging Face's checkpoints."""

    def matrix(self, names: Sequence[str], rows: Sequence[int], columns: int, *, interleave: bool = False) -> Any:
        """Matrices `[rows[i], columns]`, one below the other, packed for `MatMul`, `MatMulSwiglu` or `Embedding`: a tensor."""

    def vector(self, names: Sequence[str], sizes: Sequence[int]) -> Any:
        """Vectors `[sizes[i]]`, one after the other, as a float32 tensor."""
