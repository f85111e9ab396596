"""The draw of tokens from logits that lie in the host's memory, beside the graph."""

from __future__ import annotations

from typing import Any

import numpy as np

from vllm_mindspore.kernels.cpu import library

Numbers = np.ndarray[Any, Any]


def sample(
    logits: Numbers,
    uniform: Numbers,
    temperature: Numbers | None = None,
    top_k: Numbers | None = None,
    top_p: Numbers | None = None,
    min_p: Numbers | None = None,
) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Draw a token from each row: the first up to which the probabilities exceed a number, as one throws a dart at them.

    Probabilities are the softmax of `logits / temperature` over what the bounds leave of the vocabulary, one bound after the other.

    Args:
        logits: `[num_seqs, vocab_size]`, float32.
        uniform: `[num_seqs]`, drawn evenly from 0 to 1, 1 excluded.
        temperature: `[num_seqs]`, above 0.
        top_k: `[num_seqs]`, leaves the k most likely tokens and those that are as likely as the last of them.
        top_p: `[num_seqs]`, leaves the fewest most likely tokens that hold so much of the probability, and the best of them in any case.
        min_p: `[num_seqs]`, leaves tokens that are at least so many times as likely as the best.

    Returns:
        `[num_seqs]`. Of a row without a finite largest logit its first largest, or 0.
    """
    rows, vocabulary = logits.shape
    logits = np.ascontiguousarray(logits, np.float32)
    numbers = [
        None if one is None else np.ascontiguousarray(np.broadcast_to(one, rows), kind)
        for one, kind in ((temperature, np.float32), (top_k, np.int32), (top_p, np.float32), (min_p, np.float32), (uniform, np.float64))
    ]  # fmt: skip
    tokens = np.empty(rows, np.int64)
    library.load().vms_sample(
        logits.ctypes.data, rows, vocabulary, *(None if one is None else one.ctypes.data for one in numbers), tokens.ctypes.data
    )  # fmt: skip
    return tokens
