"""The paged KV cache of all layers, and a pool in host memory to which blocks of preempted sequences are moved."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from vllm_mindspore.engine.ahead import MemoryAhead
from vllm_mindspore.kernels import ops

if TYPE_CHECKING:
    from mindspore import Tensor

    from vllm_mindspore.models.config import ModelConfig

BlockPairs = Sequence[tuple[int, int]]
"""Source and destination block of each move."""


class KVCache:
    """Keys and values of all layers, or latents and rotated keys, block by block.

    The arrays share their memory with the tensors that the network reads and writes, so moves are plain copies. Memory is taken as blocks are
    written, in the pool as well, or by `ahead` just before.

    Args:
        config: of the network.
        num_blocks: blocks that the network can address.
        block_size: tokens in a block.
        num_host_blocks: blocks of the pool.
    """

    def __init__(self, config: ModelConfig, num_blocks: int, block_size: int, num_host_blocks: int = 0) -> None:
        self._dtype = config.dtype

        def arrays(blocks: int) -> list[np.ndarray[Any, Any]]:
            widths = config.cache_widths * config.num_layers
            return [ops.cache_array(blocks, block_size, heads, width, config.dtype) for heads, width in widths]

        self._blocks = arrays(num_blocks)
        self._pool = arrays(num_host_blocks) if num_host_blocks else []
        self.ahead = MemoryAhead(self._blocks)

    def layers(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Both caches of each layer, `[num_blocks, block_size, kv_head_num, head_dim]`."""
        tensors = [ops.cache_tensor(blocks, self._dtype) for blocks in self._blocks]
        return zip(tensors[::2], tensors[1::2])

    def swap_out(self, pairs: BlockPairs) -> None:
        """Copy blocks into the pool."""
        _move(self._blocks, self._pool, pairs)

    def swap_in(self, pairs: BlockPairs) -> None:
        """Copy blocks back from the pool."""
        _move(self._pool, self._blocks, pairs)

    def copy(self, pairs: BlockPairs) -> None:
        """Copy blocks within the cache."""
        _move(self._blocks, self._blocks, pairs)


def _move(sources: list[np.ndarray[Any, Any]], destinations: list[np.ndarray[Any, Any]], pairs: BlockPairs) -> None:
    if not pairs:
        return
    source_blocks, destination_blocks = np.asarray(pairs, np.int64).reshape(-1, 2).T
    for source, destination in zip(sources, destinations):
        destination[destination_blocks] = source[source_blocks]
