"""From logits to tokens and log probabilities, by vLLM's own V0 sampler on torch tensors that share the logits' memory."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from copy import copy
from typing import TYPE_CHECKING, Callable

import numpy as np
import torch
from vllm.model_executor.layers.logits_processor import _apply_logits_processors
from vllm.model_executor.layers.sampler import Sampler, SamplerOutput
from vllm.model_executor.sampling_metadata import SamplingMetadata
from vllm.sampling_params import SamplingParams, SamplingType
from vllm.sequence import CompletionSequenceGroupOutput, Logprob, SequenceOutput

from vllm_mindspore.compat.common.v0.request_batch import wants_prompt_logprobs

if TYPE_CHECKING:
    from vllm.sequence import SequenceGroupMetadata

    from vllm_mindspore.compat.common.host_torch import HostTorch
    from vllm_mindspore.compat.common.v0.request_batch import Step
    from vllm_mindspore.engine.step import Float32Array, StepOutput

_NOT_ASKED_FOR = float("inf")
"""What vLLM's sampler gives as a token's log probability where nobody wants it."""


class Sampling:
    """Samples a token for each sequence that wants one."""

    def __init__(self, compute_logits: Callable[[Float32Array], Float32Array], host_torch: HostTorch) -> None:
        """`compute_logits` maps hidden states `[n, hidden_size]` to logits `[n, vocab_size]`."""
        self._compute_logits = compute_logits
        self._host_torch = host_torch
        self._sampler = Sampler()
        self._generators: dict[str, torch.Generator] = {}
        self._plain: dict[str, bool] = {}
        self._prompt_logprobs_given: dict[str, int] = {}

    def forget(self, request_ids: Iterable[str]) -> None:
        """Drop what is kept for requests that are finished."""
        for request_id in request_ids:
            self._generators.pop(request_id, None)
            self._plain.pop(request_id, None)
            self._prompt_logprobs_given.pop(request_id, None)

    def __call__(self, groups: Sequence[SequenceGroupMetadata], step: Step, output: StepOutput) -> SamplerOutput:
        """A `SamplerOutput` with an entry for each group, empty for one that does not sample."""
        if all(self._is_plain_greedy(group) for group in groups):
            return _greedy(groups, output.greedy_token_ids.tolist())
        return self._host_torch.run(self._sample, groups, step, output)

    def _is_plain_greedy(self, group: SequenceGroupMetadata) -> bool:
        """Whether the group takes the most likely token of the bare logits and wants nothing else from the sampler."""
        plain = self._plain.get(group.request_id)
        if plain is None:
            plain = self._plain[group.request_id] = _is_plain_greedy(group.sampling_params)
        return plain

    def _sample(self, groups: Sequence[SequenceGroupMetadata], step: Step, output: StepOutput) -> SamplerOutput:
        # Groups that are in mid-prompt are kept from vLLM's sampler: it would draw from their generators, and give what it
        # drew to their neighbours.
        shown = [i for i, group in enumerate(groups) if group.do_sample or wants_prompt_logprobs(group)]
        entries = [CompletionSequenceGroupOutput([], None) for _ in groups]
        if shown:
            metadata = self._metadata([groups[i] for i in shown], step, shown)
            logits = _apply_logits_processors(
                torch.from_numpy(self._rows(groups, step, output, shown, metadata)), metadata
            )
            for i, entry in zip(shown, self._sampler(logits, metadata)):
                entries[i] = entry
                self._drop_what_was_given(groups[i], entry)
        return SamplerOutput(outputs=entries)

    def _drop_what_was_given(self, group: SequenceGroupMetadata, entry: CompletionSequenceGroupOutput) -> None:
        """The engine appends prompt log probabilities to those of earlier chunks, also when a prompt is computed again."""
        if entry.prompt_logprobs is None:
            return
        (data,) = group.seq_data.values()
        start = data.get_num_computed_tokens()
        given = self._prompt_logprobs_given.get(group.request_id, 0)
        end = start + len(entry.prompt_logprobs)
        entry.prompt_logprobs = entry.prompt_logprobs[max(0, given - start) :]
        self._prompt_logprobs_given[group.request_id] = max(given, end)

    def _rows(
        self,
        groups: Sequence[SequenceGroupMetadata],
        step: Step,
        output: StepOutput,
        shown: Sequence[int],
        metadata: SamplingMetadata,
    ) -> Float32Array:
        """Logits of the rows that the sampler looks at: each prompt position that log probabilities are owed for, and each sampled one."""
        if not any(map(wants_prompt_logprobs, groups)):
            return output.logits
        lengths = [length * len(group.seq_data) for length, group in zip(step.query_lens, groups)]
        ends = np.cumsum(lengths)
        tokens = np.concatenate([np.arange(ends[i] - lengths[i], ends[i]) for i in shown])
        return self._compute_logits(output.hidden_states[tokens[metadata.selected_token_indices.numpy()]])

    def _metadata(self, groups: Sequence[SequenceGroupMetadata], step: Step, shown: Sequence[int]) -> SamplingMetadata:
        """vLLM's view of the groups. A request that is computed again after a preemption goes on with its generator."""
        before = dict(self._generators)
        metadata = SamplingMetadata.prepare(
            [_for_sampler(group) for group in groups],
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


def _for_sampler(group: SequenceGroupMetadata) -> SequenceGroupMetadata:
    """The group itself, or a copy without what vLLM's sampler cannot handle.

    It fails on an assertion if prompt log probabilities are asked for beside output tokens, as after a preemption; and where only they
    are wanted, it must not draw from the request's generator.
    """
    if not group.is_prompt or group.sampling_params.prompt_logprobs is None:
        return group
    group, params = copy(group), copy(group.sampling_params)
    if not wants_prompt_logprobs(group):
        params.prompt_logprobs = None
    elif not group.do_sample:
        params.temperature = 0.0
        params.__dict__.pop("sampling_type", None)  # cached
    group.sampling_params = params
    return group


def _is_plain_greedy(params: SamplingParams) -> bool:
    return bool(
        params.sampling_type == SamplingType.GREEDY
        and params.logprobs is None
        and params.prompt_logprobs is None
        and not params.logits_processors
        and not params.min_tokens
        and not params.presence_penalty
        and not params.frequency_penalty
        and params.repetition_penalty == 1.0
    )


def _greedy(groups: Sequence[SequenceGroupMetadata], tokens: list[int]) -> SamplerOutput:
    """The output for groups whose sampling sequences take `tokens`, in order."""
    remaining = iter(tokens)
    outputs = []
    for group in groups:
        samples = []
        if group.do_sample:
            for seq_id in group.seq_data:
                token = next(remaining)
                samples.append(SequenceOutput(seq_id, token, {token: Logprob(_NOT_ASKED_FOR)}))
        outputs.append(CompletionSequenceGroupOutput(samples, None))
    return SamplerOutput(outputs=outputs)
