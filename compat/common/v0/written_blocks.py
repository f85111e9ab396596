"""What the blocks of the KV cache really hold, to check what vLLM's V0 scheduler takes for cached.

With chunked prefill and prefix caching together, vLLM up to 0.9.1 marks all blocks of a prompt as computed once its first chunk is
scheduled (`BlockAllocator.mark_blocks_as_computed`). If the request is preempted before its last chunk, or another with the same prefix
comes along, the scheduler reports a hit on blocks that nobody wrote. So each hit is cut to the blocks that were.
"""

from __future__ import annotations

from collections.abc import Sequence

BlockPairs = Sequence[tuple[int, int]]


class WrittenBlocks:
    """A key for each full block: a hash of its tokens and of all tokens before it. Every change to the cache is told to it."""

    def __init__(self, block_size: int) -> None:
        self._block_size = block_size
        self._keys: dict[int, int] = {}
        self._pool_keys: dict[int, int] = {}

    def hit(self, tokens: Sequence[int], block_table: Sequence[int], claimed: int) -> int:
        """How many of the first `claimed` blocks hold these tokens.

        Args:
            tokens: of the sequence, from its first on.
            block_table: its blocks.
            claimed: blocks that the scheduler takes for cached.
        """
        key = 0
        for index in range(claimed):
            key = self._key(key, tokens, index)
            if self._keys.get(block_table[index]) != key:
                return index
        return claimed

    def write(self, tokens: Sequence[int], block_table: Sequence[int], start: int, end: int) -> None:
        """Positions `start` to `end` of a sequence are written; those before were."""
        size = self._block_size
        for index in range(start // size, -(-end // size)):
            block = block_table[index]
            before = self._keys.get(block_table[index - 1]) if index else 0
            if before is None or (index + 1) * size > end:
                self._keys.pop(block, None)  # not full yet
            else:
                self._keys[block] = self._key(before, tokens, index)

    def swap_out(self, pairs: BlockPairs) -> None:
        _move(self._keys, self._pool_keys, pairs)

    def swap_in(self, pairs: BlockPairs) -> None:
        _move(self._pool_keys, self._keys, pairs)

    def copy(self, pairs: BlockPairs) -> None:
        _move(self._keys, self._keys, pairs)

    def _key(self, before: int, tokens: Sequence[int], index: int) -> int:
        size = self._block_size
        return hash((before, *tokens[index * size : (index + 1) * size]))


def _move(sources: dict[int, int], destinations: dict[int, int], pairs: BlockPairs) -> None:
    moved = {destination: sources.get(source) for source, destination in pairs}
    for block, key in moved.items():
        if key is None:
            destinations.pop(block, None)
        else:
            destinations[block] = key
