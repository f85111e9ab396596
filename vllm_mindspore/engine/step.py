"""What crosses the line between an adapter and the core: one scheduler step in, one result out.

Everything is numpy, nothing is vLLM's: an adapter of any release fills the same `StepBatch`.
"""

from __future__ import annotations

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
    """`[num_logits]`, rows of the token axis that want logits, in the order in which they shall come back."""


@dataclass
class StepOutput:
    """Results for the rows in `StepBatch.logits_indices`, valid until the next `execute`."""

    logits: Float32Array
    """`[num_logits, vocab_size]`, a view of device memory where the device allows it."""
    greedy_token_ids: Int32Array
    """`[num_logits]`, argmax of each row, the lowest id among equals."""
    hidden_states: Float32Array
    """`[num_tokens, hidden_size]`, after the final norm: input of `ModelRunner.compute_logits`."""
