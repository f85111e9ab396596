"""From logits to tokens and log probabilities: the kernels' own draw where a request wants no more, else vLLM's own V0 sampler."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from copy import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Callable

import numpy as np
import torch
from vllm.model_executor.layers.logits_processor import _apply_logits_processors
from vllm.model_executor.layers.sampler import Sampler, SamplerOutput
from vllm.model_executor.sampling_metadata import SamplingMetadata
from vllm.sampling_params import SamplingParams, SamplingType
from vllm.sequence import CompletionSequenceGroupOutput, Logprob, SequenceOutput

from vllm_mindspore.compat.common.host_torch import torch_on_one_thread
from vllm_mindspore.compat.common.v0.request_batch import wants_prompt_logprobs
from vllm_mindspore.kernels.cpu import sampling as host_sampling

if TYPE_CHECKING:
    from vllm.sequence import SequenceGroupMetadata

    from vllm_mindspore.compat.common.v0.request_batch import Step
    from vllm_mindspore.engine.step import Float32Array, StepOutput

_NOT_ASKED_FOR = float("inf")
"""What vLLM's sampler gives as a token's log probability where nobody wants it."""
_PROMPT_ROWS = 64
"""Prompt positions whose logits are looked at together: bounds the memory that prompt log probabilities take."""


@dataclass(frozen=True)
class _Draw:
    """How a request's tokens come from the bare logits, without vLLM's sampler: that sorts the vocabulary and draws a number for each token of it."""

    temperature: float
    """0: the most likely token."""
    top_k: int
    top_p: float
    min_p: float
    generator: torch.Generator | None
    """Of a request with a seed."""

    def dart(self) -> float:
        """A number from 0 to 1, drawn evenly."""
        return torch.rand((), dtype=torch.float64, generator=self.generator).item()


class Sampling:
    """Samples a token for each sequence that wants one."""

    def __init__(self, compute_logits: Callable[[Float32Array], Float32Array]) -> None:
        """`compute_logits` maps hidden states `[n, hidden_size]` to logits `[n, vocab_size]`."""
        self._compute_logits = compute_logits
        self._sampler = Sampler()
        self._generators: dict[str, torch.Generator] = {}
        self._draws: dict[str, _Draw | None] = {}
        self._prompt_logprobs_given: dict[str, int] = {}

    def forget(self, request_ids: Iterable[str]) -> None:
        """Drop what is kept for requests that are finished."""
        for request_id in request_ids:
            self._generators.pop(request_id, None)
            self._draws.pop(request_id, None)
            self._prompt_logprobs_given.pop(request_id, None)

    def __call__(self, groups: Sequence[SequenceGroupMetadata], step: Step, output: StepOutput) -> SamplerOutput:
        """A `SamplerOutput` with an entry for each group, empty for one that does not sample."""
        draws = [self._draw(group) for group in groups]
        # Of each row of logits, the group.
        owners = [i for i, group in enumerate(groups) if group.do_sample for _ in group.seq_data]
        entries = _entries(groups, _drawn([draws[i] for i in owners], output))
        if None in draws:
            with torch_on_one_thread():
                self._complete(entries, groups, draws, owners, step, output)
        return SamplerOutput(outputs=entries)

    def _draw(self, group: SequenceGroupMetadata) -> _Draw | None:
        """None for a request that wants something else of vLLM's sampler."""
        if group.request_id not in self._draws:
            self._draws[group.request_id] = _draw_of(group.sampling_params)
        return self._draws[group.request_id]

    def _complete(
        self,
        entries: list[CompletionSequenceGroupOutput],
        groups: Sequence[SequenceGroupMetadata],
        draws: Sequence[_Draw | None],
        owners: Sequence[int],
        step: Step,
        output: StepOutput,
    ) -> None:
        """Put in what comes from vLLM's sampler."""
        # vLLM's sampler is shown the groups without a draw. Those that are in mid-prompt are kept from it: it would draw from their generators,
        # and give what it drew to their neighbours.
        shown = [i for i, group in enumerate(groups) if group.do_sample and draws[i] is None]
        if shown:
            rows = np.isin(owners, shown)
            vocab_size = output.logits.shape[1]
            metadata = self._metadata([groups[i] for i in shown], step, shown, vocab_size)
            logits = torch.from_numpy(output.logits if rows.all() else output.logits[rows])
            for i, entry in zip(shown, self._sampler(_apply_logits_processors(logits, metadata), metadata)):
                entries[i] = entry
        end = 0
        for i, group in enumerate(groups):
            end += step.query_lens[i] * len(group.seq_data)
            if wants_prompt_logprobs(group):
                first = step.seq_lens[i] - step.query_lens[i]
                hidden_states = output.hidden_states[end - step.query_lens[i] : end]
                entries[i].prompt_logprobs = self._prompt_logprobs(group, first, hidden_states)

    def _prompt_logprobs(
        self, group: SequenceGroupMetadata, start: int, hidden_states: Float32Array
    ) -> list[dict[int, Logprob]]:
        """Of the tokens that follow those from position `start` on, but for those that the engine has already.

        vLLM's sampler makes several copies of all the rows that it is shown, so it is shown a few at a time, as chunks of the prompt.
        """
        (data,) = group.seq_data.values()
        end = min(start + len(hidden_states), data.get_prompt_len() - 1)
        found: list[dict[int, Logprob]] = []
        for first in range(start, end, _PROMPT_ROWS):
            count = min(_PROMPT_ROWS, end - first)
            metadata = SamplingMetadata.prepare(
                [_chunk(group, first, count)], [first + count], [count], "cpu", False, {}
            )
            logits = torch.from_numpy(self._compute_logits(hidden_states[first - start :][:count]))
            (entry,) = self._sampler(logits, metadata)
            found += entry.prompt_logprobs
        # The engine appends them to those of earlier chunks, also when a prompt is computed again.
        given = self._prompt_logprobs_given.get(group.request_id, 0)
        self._prompt_logprobs_given[group.request_id] = max(given, end)
        return found[max(0, given - start) :]

    def _metadata(
        self, groups: Sequence[SequenceGroupMetadata], step: Step, shown: Sequence[int], vocab_size: int
    ) -> SamplingMetadata:
        """vLLM's view of the groups. A request that is computed again after a preemption goes on with its generator."""
        before = dict(self._generators)
        metadata = SamplingMetadata.prepare(
            [_for_sampler(group, vocab_size) for group in groups],
            [step.seq_lens[i] for i in shown],
            [step.query_lens[i] for i in shown],
            "cpu",
            False,
            self._generators,
        )
        for group, to_sample in zip(groups, metadata.seq_groups):
            generator = before.get(group.request_id)
            if generator is not None and group.is_prompt:
                to_sample.generator = self._generators[group.request_id] = generator
        return metadata


def _for_sampler(group: SequenceGroupMetadata, vocab_size: int) -> SequenceGroupMetadata:
    """The group itself, or a copy without what vLLM's sampler is not to handle.

    Prompt log probabilities come from elsewhere. With a minimum of tokens, it would write to the logits of stop tokens that the model does not have.
    """
    params = group.sampling_params
    strange = params.min_tokens > 0 and any(not 0 <= token < vocab_size for token in params.all_stop_token_ids)
    if not strange and (params.prompt_logprobs is None or not group.is_prompt):
        return group
    group, params = copy(group), copy(params)
    params.prompt_logprobs = None
    if strange:
        params._all_stop_token_ids = {token for token in params.all_stop_token_ids if 0 <= token < vocab_size}
    group.sampling_params = params
    return group


def _chunk(group: SequenceGroupMetadata, first: int, count: int) -> SequenceGroupMetadata:
    """The group as it would be if `count` tokens of its prompt were computed in this step, from position `first` on, and none sampled."""
    ((seq_id, data),) = group.seq_data.items()
    group, data = copy(group), copy(data)
    data.reset_state_for_recompute()
    data.update_num_computed_tokens(first)
    group.seq_data, group.do_sample, group.token_chunk_size = {seq_id: data}, False, count
    return group


def _drawn(draws: Sequence[_Draw | None], output: StepOutput) -> list[int]:
    """A token for each row of logits, which are drawn from as told; any where there is no draw."""
    tokens: list[int] = output.greedy_token_ids.tolist()
    rows = [row for row, draw in enumerate(draws) if draw and draw.temperature]
    if rows:
        chosen = [draw for draw in draws if draw and draw.temperature]
        drawn = host_sampling.sample(
            output.logits if len(rows) == len(tokens) else output.logits[rows],
            np.array([draw.dart() for draw in chosen]),
            np.array([draw.temperature for draw in chosen]),
            np.array([draw.top_k for draw in chosen]),
            np.array([draw.top_p for draw in chosen]),
            np.array([draw.min_p for draw in chosen]),
        )
        for row, token in zip(rows, drawn.tolist()):
            tokens[row] = token
    return tokens


def _draw_of(params: SamplingParams) -> _Draw | None:
    """None if they ask for more than a draw."""
    if (
        params.logprobs is not None
        or params.prompt_logprobs is not None
        or params.logits_processors
        or params.min_tokens
        or params.presence_penalty
        or params.frequency_penalty
        or params.repetition_penalty != 1.0
    ):
        return None
    greedy = params.sampling_type == SamplingType.GREEDY
    generator = None if params.seed is None or greedy else torch.Generator().manual_seed(params.seed)
    return _Draw(0.0 if greedy else params.temperature, params.top_k, params.top_p, params.min_p, generator)


def _entries(groups: Sequence[SequenceGroupMetadata], tokens: Sequence[int]) -> list[CompletionSequenceGroupOutput]:
    """Of groups whose sampling sequences take `tokens`, in order."""
    remaining = iter(tokens)
    entries = []
    for group in groups:
        samples = []
        if group.do_sample:
            for seq_id in group.seq_data:
                token = next(remaining)
                samples.append(SequenceOutput(seq_id, token, {token: Logprob(_NOT_ASKED_FOR)}))
        entries.append(CompletionSequenceGroupOutput(samples, None))
    return entries
