"""One `ExecuteModelRequest` of vLLM's V0 engine in, its `SamplerOutput` out, the network in between."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vllm.model_executor.layers.sampler import SamplerOutput
from vllm.sequence import CompletionSequenceGroupOutput, SequenceData, SequenceGroupMetadata

from vllm_mindspore.compat.common.v0.request_batch import step_of
from vllm_mindspore.compat.common.v0.sampling import Sampling
from vllm_mindspore.compat.common.v0.written_blocks import WrittenBlocks

if TYPE_CHECKING:
    from vllm.config import CacheConfig
    from vllm.sequence import ExecuteModelRequest

    from vllm_mindspore.engine.kv_cache import KVCache
    from vllm_mindspore.engine.runner import ModelRunner


@dataclass
class _Burst:
    """The steps that the scheduler planned at once (multi-step scheduling), so far."""

    groups: list[SequenceGroupMetadata | None]
    """What the next step runs, or None for a group that is in mid-prompt and waits for the next plan."""
    outputs: list[SamplerOutput]


class MindSporeModelRunner:
    """Drives a `ModelRunner` from vLLM's V0 engine."""

    def __init__(self, runner: ModelRunner, cache_config: CacheConfig) -> None:
        self._runner = runner
        self._block_size: int = cache_config.block_size
        self._written = WrittenBlocks(self._block_size) if cache_config.enable_prefix_caching else None
        self._sampling = Sampling(runner.compute_logits)
        self._burst: _Burst | None = None

    def warm_up(self) -> None:
        """Compile, and return when it is done.

        A server's engine answers the question whether it is ready once. In a process that compiles it may do so when the
        question is given up already, and the server waits for ever.
        """
        self._runner.warm_up()
        self._runner.wait_for_graphs()

    def execute_model(self, request: ExecuteModelRequest) -> list[SamplerOutput]:
        """Run the step, and return its output; with multi-step scheduling, those of all steps after the last one."""
        groups = request.seq_group_metadata_list
        if not groups or groups[0].state.current_step == 0:
            self._begin(request)
        if not groups:  # only blocks to move
            return []
        if groups[0].state.num_steps == 1:
            output = self._step(groups)
            if request.async_callback is not None:
                request.async_callback()
            return [output]
        return self._next_of_burst(request, is_last=groups[0].state.remaining_steps == 1)

    def _begin(self, request: ExecuteModelRequest) -> None:
        """What the scheduler wants done before the tokens are computed, in this order."""
        self._sampling.forget(request.finished_requests_ids)
        caches: list[KVCache | WrittenBlocks] = [self._runner.kv_cache]
        if self._written is not None:
            caches.append(self._written)
        for cache in caches:
            cache.swap_in(request.blocks_to_swap_in)
            cache.swap_out(request.blocks_to_swap_out)
            cache.copy(request.blocks_to_copy)
        self._burst = None

    def _step(self, groups: Sequence[SequenceGroupMetadata]) -> SamplerOutput:
        step = step_of(groups, self._block_size, self._runner.max_model_len, self._written)
        return self._sampling(groups, step, self._runner.execute(step.batch))

    def _next_of_burst(self, request: ExecuteModelRequest, is_last: bool) -> list[SamplerOutput]:
        """One of several steps between which the engine does not change its sequences: they are grown in copies."""
        burst = self._burst
        if burst is None:
            burst = self._burst = _Burst(list(request.seq_group_metadata_list), [])
        running = [group for group in burst.groups if group is not None]
        entries = iter(self._step(running)) if running else iter(())
        nothing = CompletionSequenceGroupOutput([], None)
        output = SamplerOutput(outputs=[nothing if group is None else next(entries) for group in burst.groups])
        is_first = not burst.outputs
        burst.outputs.append(output)
        if not is_last:
            burst.groups = [
                None if group is None or not group.do_sample else _grown(group, entry, is_first)
                for group, entry in zip(burst.groups, output)
            ]
        callback = request.async_callback
        if callback is None:
            return burst.outputs if is_last else []
        # The engine takes each step's tokens as they come; the last step's it takes itself.
        callback()
        if is_last:
            return [output]
        context = callback.keywords["ctx"]
        context.append_output(
            outputs=[output],
            seq_group_metadata_list=context.seq_group_metadata_list,
            scheduler_outputs=context.scheduler_outputs,
            is_async=False,
            is_last_step=False,
            is_first_step_output=is_first,
        )
        callback()
        return []


def _grown(group: SequenceGroupMetadata, output: CompletionSequenceGroupOutput, copy: bool) -> SequenceGroupMetadata:
    """The group with its sampled tokens appended, as it decodes next; a copy if it is still the engine's own."""
    if copy:
        group = SequenceGroupMetadata(
            request_id=group.request_id,
            is_prompt=False,
            seq_data={
                seq_id: SequenceData.from_seqs(data.prompt_token_ids, data.output_token_ids)
                for seq_id, data in group.seq_data.items()
            },
            sampling_params=group.sampling_params,
            block_tables=group.block_tables,
            token_chunk_size=1,
        )
    for sample in output.samples:
        group.seq_data[sample.parent_seq_id].append_token_id(
            sample.output_token, sample.logprobs[sample.output_token].logprob
        )
    return group
