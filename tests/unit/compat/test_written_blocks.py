"""A hit on the prefix cache is believed for as many blocks as were written, and no more."""

from __future__ import annotations

from vllm_mindspore.compat.common.v0.written_blocks import WrittenBlocks

TOKENS = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8]


def written(end: int, block_table: list[int] | None = None) -> WrittenBlocks:
    blocks = WrittenBlocks(block_size=4)
    blocks.write(TOKENS, block_table or [7, 8, 9], 0, end)
    return blocks


def test_full_blocks_of_the_same_tokens_are_a_hit() -> None:
    assert written(12).hit(TOKENS, [7, 8, 9], 3) == 3
    assert written(12).hit(TOKENS, [7, 8, 9], 2) == 2


def test_a_chunk_that_was_not_computed_yet_is_no_hit() -> None:
    blocks = written(6)
    assert blocks.hit(TOKENS, [7, 8, 9], 3) == 1
    blocks.write(TOKENS, [7, 8, 9], 6, 12)
    assert blocks.hit(TOKENS, [7, 8, 9], 3) == 3


def test_the_tokens_before_a_block_count() -> None:
    other = [0, *TOKENS[1:]]
    assert written(12).hit(other, [7, 8, 9], 3) == 0
    assert written(12).hit(TOKENS, [8, 7, 9], 3) == 0


def test_a_block_that_another_sequence_writes_is_no_hit() -> None:
    blocks = written(12)
    blocks.write([1, 2, 3, 4, 5], [6, 8], 0, 5)
    assert blocks.hit(TOKENS, [7, 8, 9], 3) == 1


def test_a_decoded_token_fills_a_block() -> None:
    blocks = written(7)
    blocks.write(TOKENS, [7, 8, 9], 7, 8)
    assert blocks.hit(TOKENS, [7, 8, 9], 2) == 2


def test_moved_blocks_keep_what_they_hold() -> None:
    blocks = written(12)
    blocks.swap_out([(7, 0), (8, 1), (9, 2)])
    blocks.write([0] * 12, [7, 8, 9], 0, 12)
    blocks.swap_in([(0, 4), (1, 5), (2, 6)])
    blocks.copy([(6, 3)])
    assert blocks.hit(TOKENS, [4, 5, 6], 3) == 3
    assert blocks.hit(TOKENS, [4, 5, 3], 3) == 3
    assert blocks.hit(TOKENS, [7, 8, 9], 3) == 0
