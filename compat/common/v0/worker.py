"""The worker: vLLM's V0 worker interface around one `ModelRunner`. It runs in the engine's process, where MindSpore is first imported."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, NoReturn

import torch
import vllm.envs as envs
from vllm.logger import init_logger
from vllm.model_executor.utils import set_random_seed
from vllm.worker.worker_base import WorkerBase

from vllm_mindspore.bootstrap import import_mindspore
from vllm_mindspore.compat.common.host_torch import HostTorch
from vllm_mindspore.compat.common.kv_budget import GIB, kv_cache_budget
from vllm_mindspore.compat.common.v0.network import dtype_name, network_config
from vllm_mindspore.engine import memory
from vllm_mindspore.errors import UserError

if TYPE_CHECKING:
    from vllm.config import VllmConfig
    from vllm.model_executor.layers.sampler import SamplerOutput
    from vllm.sequence import ExecuteModelRequest

logger = init_logger("vllm_mindspore.compat.common.v0.worker")

_KV_SPACE = "VLLM_CPU_KVCACHE_SPACE"


class MindSporeWorker(WorkerBase):
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
        """Bring MindSpore into this process, before anything of the core that needs it."""
        import_mindspore()
        self.host_torch = HostTorch()
        set_random_seed(self.model_config.seed)

    def load_model(self) -> None:
        """Read the checkpoint into a MindSpore network.

        Raises:
            UserError: the checkpoint is damaged, incomplete or of a model that we do not have.
        """
        from vllm_mindspore.loader import load_model

        self.network = load_model(
            self.model_config.model,
            self.model_config.hf_config,
            dtype_name(self.vllm_config),
            revision=self.model_config.revision,
            download_dir=self.load_config.download_dir,
            max_position=self._longest_sequence(),
        )

    def determine_num_available_blocks(self) -> tuple[int, int]:
        """Blocks of the KV cache, and of the pool to which the scheduler may swap (`--swap-space`).

        Raises:
            UserError: the KV cache does not fit into memory.
        """
        scheduler = self.scheduler_config
        budget = kv_cache_budget(
            requested=self._requested_kv_bytes(),
            utilization=self.cache_config.gpu_memory_utilization,
            total=memory.total_memory(),
            available=memory.available_memory(),
            weights=sum(parameter.nbytes for parameter in self.network.get_parameters()),
            activations=memory.activation_bytes(
                self.network_config, scheduler.max_num_batched_tokens, scheduler.max_num_seqs
            ),
        )
        logger.info("KV cache: %.2f GiB", budget / GIB)
        per_block = self.get_cache_block_size_bytes()
        return budget // per_block, int(self.cache_config.swap_space_bytes) // per_block

    def _requested_kv_bytes(self) -> tuple[int, str] | None:
        """Bytes that the user asked for, and by which option."""
        blocks = self.cache_config.num_gpu_blocks_override
        if blocks is not None:
            return blocks * self.get_cache_block_size_bytes(), "--num-gpu-blocks-override"
        try:
            gib = envs.VLLM_CPU_KVCACHE_SPACE
        except ValueError:
            gib = -1
        if gib < 0:
            raise UserError(f"{_KV_SPACE}={os.environ[_KV_SPACE]} is not a whole number of GiB: correct or unset it.")
        return (gib * GIB, _KV_SPACE) if gib else None

    def get_cache_block_size_bytes(self) -> int:
        return memory.kv_cache_bytes_per_block(self.network_config, self.cache_config.block_size)

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
                f"lower --max-model-len to {num_gpu_blocks * block_size} or raise {_KV_SPACE} or --gpu-memory-utilization."
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
        )
        self.model_runner = MindSporeModelRunner(runner, block_size, self.host_torch)
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

    def get_model(self) -> Any:
        """The MindSpore network (a Cell), for `LLM.apply_model`."""
        return self.network

    def _no_lora(self, *args: Any) -> NoReturn:
        raise UserError("vllm-mindspore does not support LoRA yet.")

    add_lora = remove_lora = pin_lora = list_loras = _no_lora

    def start_profile(self) -> NoReturn:
        raise UserError("vllm-mindspore does not support profiling through vLLM yet.")

    stop_profile = start_profile
