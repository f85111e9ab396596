"""The worker: vLLM's V1 worker interface around one `ModelRunner`. It runs in the engine's process, where MindSpore is first imported."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Callable, ClassVar, NoReturn

import torch
import vllm.envs as envs
from vllm.logger import init_logger
from vllm.model_executor.utils import set_random_seed
from vllm.v1.kv_cache_interface import FullAttentionSpec
from vllm.v1.worker.worker_base import WorkerBase

from vllm_mindspore.bootstrap import import_mindspore
from vllm_mindspore.compat.common.host_torch import HostTorch
from vllm_mindspore.compat.common.kv_budget import GIB, kv_cache_budget
from vllm_mindspore.compat.common.network import dtype_name, network_config
from vllm_mindspore.engine import memory
from vllm_mindspore.errors import UserError

if TYPE_CHECKING:
    from vllm.config import VllmConfig
    from vllm.v1.core.sched.output import SchedulerOutput
    from vllm.v1.kv_cache_interface import KVCacheConfig, KVCacheSpec
    from vllm.v1.outputs import ModelRunnerOutput

    from vllm_mindspore.compat.common.v1.model_runner import V1ModelRunner
    from vllm_mindspore.engine.runner import ModelRunner

logger = init_logger("vllm_mindspore.compat.common.v1.worker")

_KV_SPACE = "VLLM_CPU_KVCACHE_SPACE"


class V1Worker(WorkerBase):
    """Loads the network, sizes its KV cache and executes steps; vLLM calls the methods in the order in which they stand here."""

    model_runner_class: ClassVar[Callable[[VllmConfig, ModelRunner, HostTorch], V1ModelRunner]]
    """The adapter's."""

    def __init__(
        self,
        vllm_config: VllmConfig,
        local_rank: int,
        rank: int,
        distributed_init_method: str,
        is_driver_worker: bool = False,
    ) -> None:
        super().__init__(vllm_config, local_rank, rank, distributed_init_method, is_driver_worker)
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
            show_progress=self.load_config.use_tqdm_on_load,
            max_position=self.model_config.max_model_len,
        )

    def get_kv_cache_spec(self) -> dict[str, KVCacheSpec]:
        """One entry a layer. All keep the keys of the whole sequence; a sliding window only hides them from the kernel."""
        config = self.network_config
        spec = FullAttentionSpec(
            block_size=self.cache_config.block_size,
            num_kv_heads=config.num_kv_heads,
            head_size=config.head_dim,
            dtype=self.model_config.dtype,
            use_mla=False,
        )
        return {f"model.layers.{layer}.self_attn": spec for layer in range(config.num_layers)}

    def determine_available_memory(self) -> int:
        """Bytes for the KV cache.

        Raises:
            UserError: it does not fit into memory.
        """
        config = self.network_config
        scheduler = self.scheduler_config
        budget = kv_cache_budget(
            requested=self._requested_kv_bytes(),
            utilization=self.cache_config.gpu_memory_utilization,
            total=memory.total_memory(),
            available=memory.available_memory(),
            weights=sum(parameter.nbytes for parameter in self.network.get_parameters()),
            activations=memory.activation_bytes(config, scheduler.max_num_batched_tokens, scheduler.max_num_seqs),
        )
        logger.info("KV cache: %.2f GiB", budget / GIB)
        return budget

    def _requested_kv_bytes(self) -> tuple[int, str] | None:
        """Bytes that the user asked for, and by which option."""
        blocks = self.cache_config.num_gpu_blocks_override
        if blocks is not None:
            # vLLM 0.9.1 logs the override and then ignores it; with just this much memory, both releases come to that number.
            per_block = memory.kv_cache_bytes_per_block(self.network_config, self.cache_config.block_size)
            return blocks * per_block, "--num-gpu-blocks-override"
        try:
            gib = envs.VLLM_CPU_KVCACHE_SPACE
        except ValueError:
            gib = -1
        if gib < 0:
            raise UserError(f"{_KV_SPACE}={os.environ[_KV_SPACE]} is not a whole number of GiB: correct or unset it.")
        return (gib * GIB, _KV_SPACE) if gib else None

    def initialize_from_config(self, kv_cache_config: KVCacheConfig) -> None:
        """Allocate the KV cache and everything that a step needs."""
        from vllm_mindspore.engine.runner import ModelRunner

        runner = ModelRunner(
            self.network,
            num_blocks=kv_cache_config.num_blocks,
            block_size=self.cache_config.block_size,
            max_num_tokens=self.scheduler_config.max_num_batched_tokens,
            max_num_seqs=self.scheduler_config.max_num_seqs,
            max_model_len=self.model_config.max_model_len,
        )
        self.model_runner = type(self).model_runner_class(self.vllm_config, runner, self.host_torch)

    def compile_or_warm_up_model(self) -> None:
        self.model_runner.warm_up()
        # What was drawn so far must not change what a seed gives.
        set_random_seed(self.model_config.seed)

    def execute_model(self, scheduler_output: SchedulerOutput) -> ModelRunnerOutput | None:
        output = self.model_runner.execute_model(scheduler_output)
        return output if self.is_driver_worker else None

    def get_model(self) -> Any:
        """The MindSpore network (a Cell), for `LLM.apply_model`."""
        return self.network

    def _no_lora(self, *args: Any) -> NoReturn:
        raise UserError("vllm-mindspore does not support LoRA yet.")

    def _v0_only(self, *args: Any) -> NoReturn:
        raise UserError("This worker is for vLLM's V1 engine, which sizes the KV cache by determine_available_memory.")

    # vLLM's base class logs a warning that names every method of its interface that a worker leaves out.
    add_lora = remove_lora = pin_lora = list_loras = _no_lora
    determine_num_available_blocks = initialize_cache = get_cache_block_size_bytes = _v0_only

    def profile(self, is_start: bool = True) -> NoReturn:
        raise UserError("vllm-mindspore does not support profiling through vLLM yet.")

    def sleep(self, level: int = 1) -> NoReturn:
        raise UserError("vllm-mindspore does not support sleep mode yet.")

    def wake_up(self, tags: list[str] | None = None) -> NoReturn:
        raise UserError("vllm-mindspore does not support sleep mode yet.")
