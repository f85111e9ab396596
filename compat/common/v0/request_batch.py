"""From the sequence groups of a scheduled step to a `StepBatch`.

The V0 scheduler sends everything that a step needs with each step, so nothing is kept in between.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from vllm_mindspore.engine.step import StepBatch

if TYPE_CHECKING:
    from vllm.sequence import SequenceData, SequenceGroupMetadata

    from vllm_mindspore.compat.common.v0.written_blocks import WrittenBlocks

logger = logging.getLogger(__name__)


@dataclass
class Step:
    """A step for the runner, and what vLLM's sampler has to know of it."""

    batch: StepBatch
    seq_lens: list[int]
    """For each group, tokens in its cache once the step is written."""
    query_lens: list[int]
    """For each group, its new tokens in this step."""


def step_of(
    groups: Sequence[SequenceGroupMetadata], block_size: int, longest: int, written: WrittenBlocks | None
) -> Step:
    """Lay out the new tokens of all groups, one group after the other.

    A group that samples wants the logits of the last token of each of its sequences. vLLM refuses a prompt that is too long by the tokens that
    are new in its first step, so that one of which some are cached or come in a later chunk gets here. What is too much of it is not computed:
    vLLM ends it, with the reason "length", as soon as it has a token.

    Args:
        groups: what the scheduler wants run.
        block_size: tokens in a block.
        longest: most tokens of a sequence.
        written: what the blocks hold, where prefixes are cached; it learns what this step writes.
    """
    tokens: list[int] = []
    starts: list[int] = []
    ends: list[int] = []
    tables: list[list[int]] = []
    wanted: list[int] = []
    seq_lens, query_lens = [], []
    for group in groups:
        for seq_id, data in group.seq_data.items():
            table = group.block_tables[seq_id]
            start, end = _new_tokens(group, data, table, block_size, written)
            if end > longest:
                logger.warning("Input prompt (%d tokens) is too long and exceeds limit of %d", data.get_len(), longest)
                start, end = min(start, longest - 1), longest
            tokens += data.get_token_ids()[start:end] if group.is_prompt else [data.get_last_token_id()]
            if group.do_sample:
                wanted.append(len(tokens) - 1)
            starts.append(start)
            ends.append(end)
            tables.append(table)
            if written is not None:
                written.write(data.get_token_ids(), table, start, end)
        seq_lens.append(ends[-1])
        query_lens.append(ends[-1] - starts[-1])

    context_lens = np.array(ends, np.int32)
    q_seq_lens = context_lens - np.array(starts, np.int32)
    block_tables = np.zeros((len(tables), max(map(len, tables))), np.int32)
    for row, table in zip(block_tables, tables):
        row[: len(table)] = table
    # vLLM gives a prompt that is too long all its blocks with its first chunk.
    block_tables = block_tables[:, : -(-longest // block_size)]
    # For q_seq_lens [2, 3]: rows [0, 0, 1, 1, 1]; positions count up from each row's start.
    rows = np.repeat(np.arange(len(tables), dtype=np.int32), q_seq_lens)
    row_ends = np.cumsum(q_seq_lens, dtype=np.int32)
    positions = np.arange(len(rows), dtype=np.int32) + (context_lens - row_ends)[rows]
    blocks = block_tables[rows, positions // block_size]
    batch = StepBatch(
        token_ids=np.array(tokens, np.int32),
        position_ids=positions,
        slot_mapping=blocks * np.int32(block_size) + positions % np.int32(block_size),
        block_tables=block_tables,
        context_lens=context_lens,
        q_seq_lens=q_seq_lens,
        logits_indices=np.array(wanted, np.int32),
    )
    return Step(batch, seq_lens, query_lens)


def _new_tokens(
    group: SequenceGroupMetadata,
    data: SequenceData,
    block_table: Sequence[int],
    block_size: int,
    written: WrittenBlocks | None,
) -> tuple[int, int]:
    """First and past-the-last position of a sequence's tokens in this step."""
    length = data.get_len()
    if not group.is_prompt:
        return length - 1, length
    start = data.get_num_computed_tokens()
    end = min(length, start + group.token_chunk_size)
    if written is not None and not wants_prompt_logprobs(group):
        claimed = len(group.computed_block_nums or ())
        cached = written.hit(data.get_token_ids(), block_table, claimed) * block_size
        data.update_num_cached_tokens(cached)
        # If the cache holds everything, the last token is computed again, for its logits.
        start = min(max(start, cached), end - 1)
    return start, end


def wants_prompt_logprobs(group: SequenceGroupMetadata) -> bool:
    """Whether this step owes log probabilities of prompt tokens: not once the group has output, as it was given them before."""
    return (
        group.is_prompt
        and group.sampling_params.prompt_logprobs is not None
        and not any(data.get_output_len() for data in group.seq_data.values())
    )
