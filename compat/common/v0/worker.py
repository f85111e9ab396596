"""The worker: vLLM's V0 worker interface around one `ModelRunner`. It runs in the engine's process, where MindSpore is first imported."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

import torch
from vllm.model_executor.utils import set_random_seed
from vllm.worker.worker_base import WorkerBase

from vllm_mindspore.compat.common.network import network_config
from vllm_mindspore.compat.common.worker import NetworkWorker
from vllm_mindspore.errors import UserError

if TYPE_CHECKING:
    from vllm.config import VllmConfig
    from vllm.model_executor.layers.sampler import SamplerOutput
    from vllm.sequence import ExecuteModelRequest


_MANY_BLOCKS = 1 << 16
"""A pool for swapping that vLLM makes in half a second; a million tokens in blocks of 16."""


class MindSporeWorker(NetworkWorker, WorkerBase):
    """Loads the network, sizes its KV cache and executes steps; vLLM calls the methods in the order in which they stand here."""

    def __init__(
        self,
        vllm_config: VllmConfig,
        local_rank: int,
        rank: int,
        distributed_init_method: str,
        is_driver_worker: bool = False,
    ) -> None:
        super().__init__(vllm_config)
        self.local_rank = local_rank
        self.rank = rank
        self.distributed_init_method = distributed_init_method
        self.is_driver_worker = is_driver_worker
        self.network_config = network_config(vllm_config)
        self.device = torch.device("cpu")

    def init_device(self) -> None:
        self.bring_in_mindspore()
        set_random_seed(self.model_config.seed)

    def load_model(self) -> None:
        self.load_network(self._longest_sequence())

    def determine_num_available_blocks(self) -> tuple[int, int]:
        """Blocks of the KV cache, and of the pool to which the scheduler may swap (`--swap-space`).

        Raises:
            UserError: the KV cache does not fit into memory.
        """
        per_block = self.bytes_per_block()
        # vLLM makes an object of each block of the pool; more than all running sequences can have are of no use, unless prompts are
        # admitted while others are swapped out.
        useful = self.scheduler_config.max_num_seqs * -(-self._longest_sequence() // self.cache_config.block_size)
        if self.scheduler_config.chunked_prefill_enabled:
            useful = max(useful, _MANY_BLOCKS)
        return self.kv_cache_bytes() // per_block, min(useful, int(self.cache_config.swap_space_bytes) // per_block)

    def get_cache_block_size_bytes(self) -> int:
        return self.bytes_per_block()

    def initialize_cache(self, num_gpu_blocks: int, num_cpu_blocks: int) -> None:
        """Allocate the KV cache and everything that a step needs.

        Raises:
            UserError: one sequence of the maximum length does not fit into the cache.
        """
        from vllm_mindspore.compat.common.v0.model_runner import MindSporeModelRunner
        from vllm_mindspore.engine.runner import ModelRunner

        block_size, longest = self.cache_config.block_size, self.model_config.max_model_len
        if num_gpu_blocks * block_size < longest:
            raise UserError(
                f"The KV cache holds {num_gpu_blocks} blocks of {block_size} tokens, a sequence may have {longest}: "
                f"lower --max-model-len to {num_gpu_blocks * block_size} or raise VLLM_CPU_KVCACHE_SPACE or --gpu-memory-utilization."
            )
        self.cache_config.num_gpu_blocks, self.cache_config.num_cpu_blocks = num_gpu_blocks, num_cpu_blocks
        runner = ModelRunner(
            self.network,
            num_blocks=num_gpu_blocks,
            num_host_blocks=num_cpu_blocks,
            block_size=block_size,
            max_num_tokens=self.scheduler_config.max_num_batched_tokens,
            max_num_seqs=self.scheduler_config.max_num_seqs,
            max_model_len=self._longest_sequence(),
            capture_launches=not self.model_config.enforce_eager,
        )
        self.model_runner = MindSporeModelRunner(runner, self.cache_config)
        self.model_runner.warm_up()
        # What was drawn so far must not change what a seed gives.
        set_random_seed(self.model_config.seed)

    def _longest_sequence(self) -> int:
        """Tokens: a sequence that ends within the steps that were planned at once is computed to their end."""
        return self.model_config.max_model_len + self.scheduler_config.num_scheduler_steps - 1

    def execute_model(self, execute_model_req: ExecuteModelRequest | None = None) -> list[SamplerOutput] | None:
        """Run a step; None, with which vLLM ends the loops of workers that are not the driver, needs no answer."""
        if execute_model_req is None:
            return None
        return self.model_runner.execute_model(execute_model_req)

    def start_profile(self) -> NoReturn:
        self.profile()

    stop_profile = start_profile
