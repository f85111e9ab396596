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

    def forget(self, request_ids: Iterable[str]) -> None:
        """Drop what is kept for requests that are finished."""
        for request_id in request_ids:
            self._generators.pop(request_id, None)
            self._plain.pop(request_id, None)

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
        metadata = self._metadata(groups, step)
        rows = output.logits
        if any(map(wants_prompt_logprobs, groups)):
            # More rows than those that are sampled from.
            selected = metadata.selected_token_indices.numpy()
            rows = self._compute_logits(output.hidden_states[selected])
        if not len(rows):  # vLLM 0.6.6's sampler gives an entry for the first group only
            return _greedy(groups, [])
        logits = _apply_logits_processors(torch.from_numpy(np.ascontiguousarray(rows)), metadata)
        return self._sampler(logits, metadata)

    def _metadata(self, groups: Sequence[SequenceGroupMetadata], step: Step) -> SamplingMetadata:
        """vLLM's view of the step.

        A request that is computed again after a preemption goes on with its generator, and is not given prompt log
        probabilities again: vLLM's sampler fails on an assertion if they are asked for beside output tokens.
        """
        before = dict(self._generators)
        metadata = SamplingMetadata.prepare(
            [_without_prompt_logprobs(group) for group in groups],
            step.seq_lens,
            step.query_lens,
            "cpu",
            False,
            self._generators,
        )
        for group, to_sample in zip(groups, metadata.seq_groups):
            generator = before.get(group.request_id)
            if generator is not None and group.is_prompt:
                to_sample.generator = self._generators[group.request_id] = generator
        return metadata


def _without_prompt_logprobs(group: SequenceGroupMetadata) -> SequenceGroupMetadata:
    """The group itself, or a copy that wants none if none are owed."""
    if not group.is_prompt or group.sampling_params.prompt_logprobs is None or wants_prompt_logprobs(group):
        return group
    group, params = copy(group), copy(group.sampling_params)
    params.prompt_logprobs = None
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
