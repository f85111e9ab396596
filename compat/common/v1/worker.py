"""The worker: vLLM's V1 worker interface around one `ModelRunner`. It runs in the engine's process, where MindSpore is first imported."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

import torch
from vllm.model_executor.utils import set_random_seed
from vllm.v1.kv_cache_interface import FullAttentionSpec
from vllm.v1.worker.worker_base import WorkerBase

from vllm_mindspore.compat.common.network import network_config
from vllm_mindspore.compat.common.worker import NetworkWorker
from vllm_mindspore.errors import UserError

if TYPE_CHECKING:
    from vllm.config import VllmConfig
    from vllm.v1.core.sched.output import SchedulerOutput
    from vllm.v1.kv_cache_interface import KVCacheConfig, KVCacheSpec
    from vllm.v1.outputs import ModelRunnerOutput


class V1Worker(NetworkWorker, WorkerBase):
    """Loads the network, sizes its KV cache and executes steps; vLLM calls the methods in the order in which they stand here."""

    model_runner_class: ClassVar[type[Any]]
    """The adapter's `V1ModelRunner`, made of a `VllmConfig` and a `ModelRunner`."""

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
        self.bring_in_mindspore()
        set_random_seed(self.model_config.seed)

    def load_model(self) -> None:
        self.load_network(self.model_config.max_model_len)

    def get_kv_cache_spec(self) -> dict[str, KVCacheSpec]:
        """One entry a layer. All keep the keys of the whole sequence; a sliding window only hides them from the kernel.

        Of latent attention vLLM counts one vector a token, `use_mla` says so, where it counts keys and values of others.
        """
        config = self.network_config
        spec = FullAttentionSpec(
            block_size=self.cache_config.block_size,
            num_kv_heads=config.num_kv_heads,
            head_size=config.head_dim,
            dtype=self.model_config.dtype,
            use_mla=config.mla is not None,
        )
        return {f"model.layers.{layer}.self_attn": spec for layer in range(config.num_layers)}

    def determine_available_memory(self) -> int:
        return self.kv_cache_bytes()

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
            capture_launches=not self.model_config.enforce_eager,
        )
        self.model_runner = self.model_runner_class(self.vllm_config, runner)

    def compile_or_warm_up_model(self) -> None:
        self.model_runner.warm_up()
        # What was drawn so far must not change what a seed gives.
        set_random_seed(self.model_config.seed)

    def execute_model(self, scheduler_output: SchedulerOutput) -> ModelRunnerOutput | None:
        output = self.model_runner.execute_model(scheduler_output)
        return output if self.is_driver_worker else None

    def _v0_only(self, *args: Any) -> NoReturn:
        raise UserError("This worker is for vLLM's V1 engine, which sizes the KV cache by determine_available_memory.")

    determine_num_available_blocks = initialize_cache = get_cache_block_size_bytes = _v0_only

    def sleep(self, level: int = 1) -> NoReturn:
        raise UserError("vllm-mindspore does not support sleep mode yet.")

    def wake_up(self, tags: list[str] | None = None) -> NoReturn:
        raise UserError("vllm-mindspore does not support sleep mode yet.")
