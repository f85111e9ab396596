"""The requests of the running batch, kept in step with the scheduler, and the `StepBatch` made of them.

Built on vLLM's own `CachedRequestState` and `InputBatch`, which carry the sampling parameters to vLLM's sampler. How a release
builds them and lays out block ids is the adapter's part.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from vllm.sampling_params import SamplingType

from vllm_mindspore.engine.step import Int32Array, StepBatch

if TYPE_CHECKING:
    from vllm.config import VllmConfig
    from vllm.v1.core.sched.output import CachedRequestData, NewRequestData, SchedulerOutput
    from vllm.v1.worker.gpu_input_batch import CachedRequestState, InputBatch

CPU = torch.device("cpu")


class V1RequestBatch(ABC):
    """Rows of the batch: `self.input_batch`, one row a scheduled request; `self.requests`, every unfinished request by its id."""

    def __init__(self, vllm_config: VllmConfig) -> None:
        self.block_size: int = vllm_config.cache_config.block_size
        self.max_model_len: int = vllm_config.model_config.max_model_len
        self.requests: dict[str, CachedRequestState] = {}
        self.input_batch = self._new_input_batch(vllm_config)
        max_num_seqs = vllm_config.scheduler_config.max_num_seqs
        self._rows, self._ones = np.arange(max_num_seqs, dtype=np.int32), np.ones(max_num_seqs, np.int32)
        self.only_greedy = True
        """Every row takes the most likely token of the bare logits and wants nothing else from the sampler."""

    @abstractmethod
    def _new_input_batch(self, vllm_config: VllmConfig) -> InputBatch:
        """vLLM's batch, empty, with all tensors on the CPU."""

    @abstractmethod
    def _request_state(self, new: NewRequestData, generator: torch.Generator | None) -> CachedRequestState:
        """vLLM's state of a request that is scheduled for the first time."""

    @abstractmethod
    def _extend_blocks(self, request: CachedRequestState, new_block_ids: Any) -> None:
        """Append block ids, as the scheduler sends them, to the request's own."""

    @abstractmethod
    def _block_table(self) -> Int32Array:
        """`[max_num_reqs, max_blocks_per_seq]`, the batch's block table."""

    def update(self, scheduler_output: SchedulerOutput) -> None:
        """Apply what the scheduler decided: rows of this step are in `input_batch` afterwards."""
        for request_id in scheduler_output.finished_req_ids:
            self.requests.pop(request_id, None)
        # A finished id may come again at once as a new request, so finished rows go before rows that are only not scheduled.
        leaving = list(scheduler_output.finished_req_ids)
        leaving += self.input_batch.req_id_to_index.keys() - scheduler_output.num_scheduled_tokens.keys()
        rows = [self.input_batch.remove_request(request_id) for request_id in dict.fromkeys(leaving)]
        free_rows = sorted((row for row in rows if row is not None), reverse=True)

        entering = []
        for new in scheduler_output.scheduled_new_reqs:
            self.requests[new.req_id] = self._request_state(new, _generator(new))
            entering.append(new.req_id)
        for cached in scheduler_output.scheduled_cached_reqs:
            if not self._advance(cached):
                entering.append(cached.req_id)

        changed = bool(free_rows or entering)
        for request_id in entering:
            self.input_batch.add_request(self.requests[request_id], free_rows.pop() if free_rows else None)
            self._drop_strange_tokens(request_id)
        if free_rows:
            self._close_gaps(free_rows)
        if changed:
            self.input_batch.refresh_sampling_metadata()
            self.only_greedy = self._wants_only_greedy()

    def _drop_strange_tokens(self, request_id: str) -> None:
        """vLLM's sampler writes to the logits of stop tokens until there are `min_tokens`, and of those with a bias, also where the model has none."""
        batch = self.input_batch
        row = batch.req_id_to_index[request_id]
        if row in batch.min_tokens:
            count, tokens = batch.min_tokens[row]
            batch.min_tokens[row] = count, {token for token in tokens if 0 <= token < batch.vocab_size}
        bias = batch.logit_bias[row]
        if bias:
            batch.logit_bias[row] = {token: by for token, by in bias.items() if 0 <= token < batch.vocab_size}

    def _advance(self, cached: CachedRequestData) -> bool:
        """Update a request that the scheduler told us of before; false if it has no row and must be added again.

        Its new tokens are not read: `record` already has what we sampled, and the scheduler knows no others.
        """
        request = self.requests[cached.req_id]
        request.num_computed_tokens = cached.num_computed_tokens
        if cached.resumed_from_preemption:
            request.block_ids = cached.new_block_ids
        else:
            self._extend_blocks(request, cached.new_block_ids)
        row = self.input_batch.req_id_to_index.get(cached.req_id)
        if row is None:
            return False
        self.input_batch.num_computed_tokens_cpu[row] = cached.num_computed_tokens
        self.input_batch.block_table.append_row(cached.new_block_ids, row)
        return True

    def _close_gaps(self, free_rows: list[int]) -> None:
        """Move the last rows into the free ones, and clear what vLLM's `condense` leaves behind in the rows it moved.

        vLLM would hand a moved row's logit bias and allowed tokens on to the next request that lands there.
        """
        batch = self.input_batch
        old_end = batch.num_reqs + len(free_rows)
        batch.condense(free_rows)
        for row in range(batch.num_reqs, old_end):
            batch.logit_bias[row] = None
            if batch.allowed_token_ids_mask_cpu_tensor is not None:
                batch.allowed_token_ids_mask_cpu_tensor[row].fill_(False)

    def _wants_only_greedy(self) -> bool:
        batch = self.input_batch
        return (
            batch.all_greedy
            and batch.max_num_logprobs is None
            and batch.no_penalties
            and batch.no_allowed_token_ids
            and not batch.min_tokens
            and not batch.bad_words_token_ids
            and not any(batch.logit_bias[: batch.num_reqs])
        )

    def step_batch(self, scheduler_output: SchedulerOutput) -> StepBatch:
        """The tokens of this step; every row wants the logits of its last token.

        Memory has let go of this code while the network ran, so what is called for the first time in a step takes ten times as long as it
        would again: decoding does without what it does not need.
        """
        batch = self.input_batch
        num_seqs = batch.num_reqs
        computed, each = batch.num_computed_tokens_cpu[:num_seqs], self._rows[:num_seqs]
        if scheduler_output.total_num_scheduled_tokens == num_seqs:  # every sequence decodes
            q_seq_lens, rows, last_rows, positions = self._ones[:num_seqs], each, each, computed
        else:
            scheduled = scheduler_output.num_scheduled_tokens
            q_seq_lens = np.fromiter((scheduled[request_id] for request_id in batch.req_ids), np.int32, num_seqs)
            ends = np.cumsum(q_seq_lens, dtype=np.int32)
            # For q_seq_lens [2, 3]: rows [0, 0, 1, 1, 1]; the position restarts at each row's computed tokens.
            rows, last_rows = np.repeat(each, q_seq_lens), ends - np.int32(1)
            positions = np.arange(len(rows), dtype=np.int32) + (computed - ends + q_seq_lens)[rows]
        context_lens: Int32Array = computed + q_seq_lens
        block_table = self._block_table()[:num_seqs]
        blocks, offsets = np.divmod(positions, np.int32(self.block_size))
        return StepBatch(
            token_ids=batch.token_ids_cpu[rows, positions],
            position_ids=positions,
            slot_mapping=block_table[rows, blocks] * np.int32(self.block_size) + offsets,
            block_tables=block_table[:, : -(-max(context_lens.tolist()) // self.block_size)],
            context_lens=context_lens,
            q_seq_lens=q_seq_lens,
            logits_indices=last_rows,
        )

    def unfinished_prompts(self, step: StepBatch) -> list[int]:
        """Rows whose tokens are not all computed after this step, so that what is sampled for them must be thrown away."""
        computed = step.context_lens.tolist()
        known = self.input_batch.num_tokens[: len(computed)].tolist()
        return [row for row, (first, second) in enumerate(zip(computed, known)) if first < second]

    def record(self, sampled: list[list[int]]) -> None:
        """Append each row's sampled token to its request at once: one that is preempted next comes back without it.

        Args:
            sampled: a list of one token for each row, or of none.
        """
        batch, requests = self.input_batch, self.requests
        ends: list[int] = batch.num_tokens[: len(sampled)].tolist()
        for row, (request_id, tokens) in enumerate(zip(batch.req_ids, sampled)):
            if not tokens:
                continue
            requests[request_id].output_token_ids.append(tokens[0])
            if ends[row] < self.max_model_len:  # the last token a sequence may have is never read again
                batch.token_ids_cpu[row, ends[row]] = tokens[0]
            ends[row] += 1
        batch.num_tokens[: len(ends)] = batch.num_tokens_no_spec[: len(ends)] = ends


def _generator(new: NewRequestData) -> torch.Generator | None:
    """For a request with a seed, its own."""
    params = new.sampling_params
    if params.sampling_type != SamplingType.RANDOM_SEED:
        return None
    generator = torch.Generator(device=CPU)
    generator.manual_seed(params.seed)
    return generator
