"""What crosses the line between an adapter and the core: one scheduler step in, one result out.

Everything is numpy, nothing is vLLM's: an adapter of any release fills the same `StepBatch`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Int32Array = npt.NDArray[np.int32]
Float32Array = npt.NDArray[np.float32]


@dataclass
class StepBatch:
    """The tokens of one step, sequence after sequence, without padding.

    A sequence contributes `q_seq_lens[i]` consecutive tokens: one when it decodes, a chunk when it prefills.
    All arrays are int32.
    """

    token_ids: Int32Array
    """`[num_tokens]`."""
    position_ids: Int32Array
    """`[num_tokens]`, position of each token in its own sequence."""
    slot_mapping: Int32Array
    """`[num_tokens]`, `block * block_size + offset` where the token's key and value go; -1 writes nothing."""
    block_tables: Int32Array
    """`[num_seqs, <= max_blocks_per_seq]`, KV cache blocks of each sequence in order; entries past the context are ignored."""
    context_lens: Int32Array
    """`[num_seqs]`, tokens of the sequence in the cache once this step is written (cached + new)."""
    q_seq_lens: Int32Array
    """`[num_seqs]`, new tokens of each sequence; sums to `num_tokens`."""
    logits_indices: Int32Array
    """`[num_logits]`, rows of the token axis that want logits, in ascending order."""

    def pieces(self, max_num_tokens: int) -> Iterator[StepBatch]:
        """The same step as several of at most `max_num_tokens` tokens each, to be run one after the other."""
        ends = np.cumsum(self.q_seq_lens, dtype=np.int32)
        begins = ends - self.q_seq_lens
        for begin in range(0, len(self.token_ids), max_num_tokens):
            end = min(begin + max_num_tokens, len(self.token_ids))
            seqs = np.flatnonzero((begins < end) & (ends > begin))
            left_out = np.maximum(ends[seqs] - end, 0).astype(np.int32)  # tokens of each sequence after this piece
            wanted = self.logits_indices[(self.logits_indices >= begin) & (self.logits_indices < end)]
            yield StepBatch(
                token_ids=self.token_ids[begin:end],
                position_ids=self.position_ids[begin:end],
                slot_mapping=self.slot_mapping[begin:end],
                block_tables=self.block_tables[seqs],
                context_lens=self.context_lens[seqs] - left_out,
                q_seq_lens=ends[seqs] - left_out - np.maximum(begins[seqs], np.int32(begin)),
                logits_indices=wanted - np.int32(begin),
            )


@dataclass
class StepOutput:
    """Results for the rows in `StepBatch.logits_indices`, valid until the next `execute`."""

    logits: Float32Array
    """`[num_logits, vocab_size]`, a view of device memory where the device allows it."""
    greedy_token_ids: Int32Array
    """`[num_logits]`, argmax of each row, the lowest id among equals."""
    hidden_states: Float32Array
    """`[num_tokens, hidden_size]`, after the final norm: input of `ModelRunner.compute_logits`."""
