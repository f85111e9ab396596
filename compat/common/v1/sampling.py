"""From logits to tokens and log probabilities, by vLLM's own sampler on torch tensors that share the logits' memory.

Its last step, which vLLM itself has in one form for each platform, is the kernels'.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Callable

import numpy as np
import torch
from vllm.v1.outputs import LogprobsLists, LogprobsTensors
from vllm.v1.sample.sampler import Sampler

from vllm_mindspore.compat.common.host_torch import torch_on_one_thread
from vllm_mindspore.engine.step import Float32Array, Int32Array
from vllm_mindspore.kernels.cpu import sampling as host_sampling

if TYPE_CHECKING:
    from vllm.v1.worker.gpu_input_batch import CachedRequestState, InputBatch


_PROMPT_ROWS = 64
"""Prompt positions whose logits are looked at together: bounds the memory that prompt logprobs take."""


class TopKTopPSampler(torch.nn.Module):
    """In the place of vLLM's module of this name, to which `Sampler` leaves top-k, top-p and the draw.

    That one sorts the vocabulary and draws a number for each token of it, 5 ms a row; this one draws one number for each row. What
    is drawn is as probable with either, and a seed gives the same tokens whoever else is in the batch.
    """

    def forward(
        self,
        logits: torch.Tensor,
        generators: dict[int, torch.Generator],
        k: torch.Tensor | None,
        p: torch.Tensor | None,
    ) -> torch.Tensor:
        """`logits [num_seqs, vocab_size]`, generators of seeded rows, `k [num_seqs]`, `p [num_seqs]` -> int64 `[num_seqs]`."""
        uniform = torch.rand(len(logits), dtype=torch.float64)
        for row, generator in generators.items():
            uniform[row] = torch.rand((), dtype=torch.float64, generator=generator)
        top_k, top_p = (None if bound is None else bound.numpy() for bound in (k, p))
        return torch.from_numpy(host_sampling.sample(logits.numpy(), uniform.numpy(), top_k=top_k, top_p=top_p))


def make_sampler() -> Sampler:
    """vLLM's sampler with that last step."""
    sampler = Sampler()
    sampler.topk_topp_sampler = TopKTopPSampler()
    return sampler


def sample(
    sampler: Sampler,
    logits: Float32Array,
    input_batch: InputBatch,
    grammar_bitmask: Int32Array | None,
    bitmask_rows: Mapping[str, int],
    discarded_rows: list[int],
) -> tuple[list[list[int]], LogprobsLists | None]:
    """Sample a token for every row.

    Args:
        logits: `[num_seqs, vocab_size]`, overwritten.
        grammar_bitmask: `[rows, ceil(vocab_size / 32)]`, a bit for each token that may come next; None if no request has a grammar.
        bitmask_rows: for each request with a grammar, its row of the bitmask.
        discarded_rows: rows whose token nobody will see; their generators stay as they were.

    Returns:
        Each row's token in a list of its own, and the log probabilities if a request wants them.
    """
    rows = torch.from_numpy(logits)
    if grammar_bitmask is not None:
        _apply_grammar(rows, input_batch, grammar_bitmask, bitmask_rows)
    generators = [input_batch.generators[row] for row in discarded_rows if row in input_batch.generators]
    states = [generator.get_state() for generator in generators]
    output = sampler(logits=rows, sampling_metadata=input_batch.sampling_metadata)
    for generator, state in zip(generators, states):
        generator.set_state(state)
    logprobs = output.logprobs_tensors
    return output.sampled_token_ids.tolist(), None if logprobs is None else logprobs.tolists()


def _apply_grammar(
    logits: torch.Tensor, input_batch: InputBatch, grammar_bitmask: Int32Array, bitmask_rows: Mapping[str, int]
) -> None:
    """Forbid the tokens that a request's grammar does not allow next, in place."""
    import xgrammar  # only where a request asks for structured output

    rows = [input_batch.req_id_to_index[request_id] for request_id in bitmask_rows]
    by_row = np.full((len(logits), grammar_bitmask.shape[1]), -1, np.int32)  # all bits set: everything allowed
    by_row[rows] = grammar_bitmask[list(bitmask_rows.values())]
    xgrammar.apply_token_bitmask_inplace(logits, torch.from_numpy(by_row), indices=rows)


class PromptLogprobs:
    """Log probabilities of prompt tokens, gathered over the chunks of each prompt."""

    def __init__(self, sampler: Sampler, compute_logits: Callable[[Float32Array], Float32Array]) -> None:
        """`compute_logits` maps hidden states `[n, hidden_size]` to logits `[n, vocab_size]`."""
        self._sampler = sampler
        self._compute_logits = compute_logits
        self._gathered: dict[str, LogprobsTensors] = {}

    def add(self, request: CachedRequestState) -> None:
        """Start on a new request that may want them. They are given once, also if it is preempted and computed again."""
        wanted = request.sampling_params.prompt_logprobs
        if wanted is not None:
            self._gathered[request.req_id] = LogprobsTensors.empty_cpu(request.num_prompt_tokens - 1, wanted + 1)

    def forget(self, request_ids: Iterable[str]) -> None:
        """Drop requests that are finished."""
        for request_id in request_ids:
            self._gathered.pop(request_id, None)

    def step(
        self,
        requests: dict[str, CachedRequestState],
        input_batch: InputBatch,
        hidden_states: Float32Array,
        last_rows: Int32Array,
        q_seq_lens: Int32Array,
    ) -> dict[str, LogprobsTensors]:
        """Gather this step's share, and return the prompts that are complete.

        Args:
            hidden_states: `[num_tokens, hidden_size]` of the step.
            last_rows: `[num_seqs]`, each sequence's last row in it.
            q_seq_lens: `[num_seqs]`, each sequence's number of rows.
        """
        complete = {}
        for request_id in [request_id for request_id in self._gathered if request_id in input_batch.req_id_to_index]:
            request = requests[request_id]
            row = input_batch.req_id_to_index[request_id]
            start, count = request.num_computed_tokens, int(q_seq_lens[row])
            first_row = int(last_rows[row]) + 1 - count
            # The row at position p tells the probability of token p + 1.
            end = min(start + count, request.num_prompt_tokens - 1)
            for position in range(start, end, _PROMPT_ROWS):
                self._gather(
                    request, position, min(position + _PROMPT_ROWS, end), hidden_states[first_row + position - start :]
                )
            if start + count >= request.num_prompt_tokens:
                complete[request_id] = self._gathered.pop(request_id)
        return complete

    def _gather(self, request: CachedRequestState, start: int, end: int, hidden_states: Float32Array) -> None:
        """Fill in positions `start` to `end`, whose hidden states come first in `hidden_states`."""
        logits = self._compute_logits(hidden_states[: end - start])
        targets = request.prompt_token_ids[start + 1 : end + 1]
        with torch_on_one_thread():
            logprobs = self._sampler.compute_logprobs(torch.from_numpy(logits))
            found = self._sampler.gather_logprobs(
                logprobs, request.sampling_params.prompt_logprobs, torch.tensor(targets, dtype=torch.int64)
            )
        for whole, part in zip(self._gathered[request.req_id], found):
            whole[start:end] = part
