"""How a network asks for its weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol


class Weights(Protocol):
    """A checkpoint, or whatever stands for one. Names are those of Hugging Face's checkpoints."""

    def matrix(
        self,
        names: Sequence[str],
        rows: Sequence[int],
        columns: int,
        *,
        interleave: bool = False,
        order: Sequence[Any | None] | None = None,
        dtype: str | None = None,
    ) -> Any:
        """Matrices `[rows[i], columns]`, one below the other, packed for `MatMul`, `MatMulSwiglu` or `Embedding`: a tensor.

        Args:
            names: of the matrices.
            rows: of each.
            columns: of all.
            interleave: they are a gate and an up projection.
            order: for each matrix, the indices of its rows in the order in which they are wanted, or None.
            dtype: if it is to be another than the model's.
        """

    def matrices(
        self, names: Sequence[Sequence[str]], rows: Sequence[int], columns: int, *, interleave: bool = False
    ) -> Any:
        """For each of `names` what `matrix` makes of it, packed for `GroupedMatmul` or `GroupedMatmulSwiglu`: a tensor."""

    def heads(self, name: str, heads: int, rows: int, columns: int, part: slice, *, transpose: bool = False) -> Any:
        """Of a matrix `[heads * rows, columns]` the same rows of each head, packed for `TransposeBatchMatmulTranspose`: a tensor."""

    def vector(self, names: Sequence[str], sizes: Sequence[int]) -> Any:
        """Vectors `[sizes[i]]`, one after the other, as a float32 tensor."""
