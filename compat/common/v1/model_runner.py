"""One step: vLLM's `SchedulerOutput` in, its `ModelRunnerOutput` out, the network in between."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Callable

from vllm.v1.outputs import EMPTY_MODEL_RUNNER_OUTPUT, LogprobsLists, ModelRunnerOutput

from vllm_mindspore.compat.common.host_torch import torch_on_one_thread
from vllm_mindspore.compat.common.v1.sampling import PromptLogprobs, make_sampler, sample

if TYPE_CHECKING:
    from vllm.v1.core.sched.output import SchedulerOutput

    from vllm_mindspore.compat.common.v1.request_batch import V1RequestBatch
    from vllm_mindspore.engine.runner import ModelRunner
    from vllm_mindspore.engine.step import StepOutput


class V1ModelRunner:
    """Drives a `ModelRunner` from vLLM's scheduler."""

    def __init__(
        self,
        batch: V1RequestBatch,
        bitmask_rows: Callable[[SchedulerOutput], Mapping[str, int]],
        runner: ModelRunner,
    ) -> None:
        """`bitmask_rows` tells which row of the scheduler's grammar bitmask belongs to which request."""
        self._runner = runner
        self._sampler = make_sampler()
        self._batch = batch
        self._bitmask_rows = bitmask_rows
        self._prompt_logprobs = PromptLogprobs(self._sampler, runner.compute_logits)

    def warm_up(self) -> None:
        """Begin to compile; a request that comes before the end of it waits."""
        self._runner.warm_up()

    def execute_model(self, scheduler_output: SchedulerOutput) -> ModelRunnerOutput:
        """Run the step that the scheduler asks for."""
        batch, input_batch = self._batch, self._batch.input_batch
        self._prompt_logprobs.forget(scheduler_output.finished_req_ids)
        batch.update(scheduler_output)
        for new in scheduler_output.scheduled_new_reqs:
            self._prompt_logprobs.add(batch.requests[new.req_id])
        if not scheduler_output.total_num_scheduled_tokens:
            return EMPTY_MODEL_RUNNER_OUTPUT

        step = batch.step_batch(scheduler_output)
        output = self._runner.execute(step)
        discarded = batch.unfinished_prompts(step)
        sampled, logprobs = self._sample(output, scheduler_output, discarded)
        for row in discarded:
            sampled[row] = []
        # After sampling: it runs the network's head again, which may reuse the memory of the step's logits.
        prompt_logprobs = self._prompt_logprobs.step(
            batch.requests, input_batch, output.hidden_states, step.logits_indices, step.q_seq_lens
        )
        batch.record(sampled)
        return ModelRunnerOutput(
            req_ids=input_batch.req_ids,
            req_id_to_index=input_batch.req_id_to_index,
            sampled_token_ids=sampled,
            spec_token_ids=None,
            logprobs=logprobs,
            prompt_logprobs_dict=prompt_logprobs,
        )

    def _sample(
        self, output: StepOutput, scheduler_output: SchedulerOutput, discarded: list[int]
    ) -> tuple[list[list[int]], LogprobsLists | None]:
        """A token for each row, in a list of its own, and the log probabilities if a request wants them."""
        if self._batch.only_greedy and scheduler_output.grammar_bitmask is None:
            return [[token] for token in output.greedy_token_ids.tolist()], None
        with torch_on_one_thread():
            return sample(
                self._sampler,
                output.logits,
                self._batch.input_batch,
                scheduler_output.grammar_bitmask,
                self._bitmask_rows(scheduler_output),
                discarded,
            )
