"""The batch in the terms of vLLM 0.8.3: one KV cache, so a request's block ids are one list."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllm.v1.worker.gpu_input_batch import CachedRequestState, InputBatch

from vllm_mindspore.compat.common.v1.request_batch import CPU, V1RequestBatch
from vllm_mindspore.engine.step import Int32Array

if TYPE_CHECKING:
    import torch
    from vllm.config import VllmConfig
    from vllm.v1.core.sched.output import NewRequestData


class RequestBatch(V1RequestBatch):
    def _new_input_batch(self, vllm_config: VllmConfig) -> InputBatch:
        return InputBatch(
            max_num_reqs=vllm_config.scheduler_config.max_num_seqs,
            max_model_len=self.max_model_len,
            max_num_blocks_per_req=-(-self.max_model_len // self.block_size),
            device=CPU,
            pin_memory=False,
            vocab_size=vllm_config.model_config.get_vocab_size(),
        )

    def _request_state(self, new: NewRequestData, generator: torch.Generator | None) -> CachedRequestState:
        return CachedRequestState(
            req_id=new.req_id,
            prompt_token_ids=new.prompt_token_ids,
            prompt=new.prompt,
            mm_inputs=new.mm_inputs,
            mm_positions=new.mm_positions,
            sampling_params=new.sampling_params,
            generator=generator,
            block_ids=new.block_ids,
            num_computed_tokens=new.num_computed_tokens,
            output_token_ids=[],
        )

    def _extend_blocks(self, request: CachedRequestState, new_block_ids: list[int]) -> None:
        request.block_ids.extend(new_block_ids)

    def _block_table(self) -> Int32Array:
        return self.input_batch.block_table.get_numpy_array()
