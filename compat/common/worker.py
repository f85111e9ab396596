"""What the workers of both engines do alike. It runs in the engine's process, where MindSpore is first imported."""

from __future__ import annotations

import os
from logging import getLogger
from typing import TYPE_CHECKING, Any, NoReturn

from vllm_mindspore.bootstrap import import_mindspore
from vllm_mindspore.compat.common.forked import leave_the_parents
from vllm_mindspore.compat.common.kv_budget import GIB, kv_cache_budget
from vllm_mindspore.compat.common.network import dtype_name
from vllm_mindspore.compat.common.quantization import weight_dtype
from vllm_mindspore.engine import memory
from vllm_mindspore.errors import UserError

if TYPE_CHECKING:
    from vllm.config import VllmConfig

    from vllm_mindspore.models.config import ModelConfig

logger = getLogger(__name__)

_KV_SPACE = "VLLM_CPU_KVCACHE_SPACE"


class NetworkWorker:
    """Loads the network and sizes its KV cache; a mixin for vLLM's `WorkerBase`, which sets `vllm_config`."""

    vllm_config: VllmConfig
    network_config: ModelConfig

    def bring_in_mindspore(self) -> None:
        """Import MindSpore in this process, before anything of the core that needs it."""
        import_mindspore()
        leave_the_parents()

    def load_network(self, max_position: int) -> None:
        """Read the checkpoint into a MindSpore network.

        Args:
            max_position: how many positions a sequence may have.

        Raises:
            UserError: the checkpoint is damaged, incomplete or of a model that we do not have.
        """
        from vllm_mindspore.loader import load_model

        model, load = self.vllm_config.model_config, self.vllm_config.load_config
        self.network = load_model(
            model.model,
            model.hf_config,
            dtype_name(self.vllm_config),
            revision=model.revision,
            download_dir=load.download_dir,
            from_modelscope=os.environ.get("VLLM_USE_MODELSCOPE", "").lower() == "true",  # as vLLM reads it
            show_progress=getattr(load, "use_tqdm_on_load", True),  # since vLLM 0.8
            weight_dtype=weight_dtype(model.quantization),
            max_position=max_position,
        )

    def kv_cache_bytes(self) -> int:
        """Bytes for the KV cache.

        Raises:
            UserError: it does not fit into memory.
        """
        scheduler = self.vllm_config.scheduler_config
        budget = kv_cache_budget(
            requested=self._requested_kv_bytes(),
            utilization=self.vllm_config.cache_config.gpu_memory_utilization,
            total=memory.total_memory(),
            available=memory.available_memory(),
            weights=sum(parameter.nbytes for parameter in self.network.get_parameters()),
            activations=memory.activation_bytes(
                self.network_config, scheduler.max_num_batched_tokens, scheduler.max_num_seqs
            ),
        )
        logger.info("KV cache: %.2f GiB", budget / GIB)
        return budget

    def bytes_per_block(self) -> int:
        """Bytes of keys and values of all layers for one block."""
        return memory.kv_cache_bytes_per_block(self.network_config, self.vllm_config.cache_config.block_size)

    def _requested_kv_bytes(self) -> tuple[int, str] | None:
        """Bytes that the user asked for, and by which option."""
        blocks = self.vllm_config.cache_config.num_gpu_blocks_override
        if blocks is not None:
            # vLLM 0.9.1 logs the override and then ignores it; with just this much memory, every release comes to that number.
            return blocks * self.bytes_per_block(), "--num-gpu-blocks-override"
        written = os.environ.get(_KV_SPACE) or "0"
        if not written.isdecimal():
            raise UserError(f"{_KV_SPACE}={written} is not a whole number of GiB: correct or unset it.")
        return (int(written) * GIB, _KV_SPACE) if int(written) else None

    def get_model(self) -> Any:
        """The MindSpore network (a Cell), for `LLM.apply_model`."""
        return self.network

    def _no_lora(self, *args: Any) -> NoReturn:
        raise UserError("vllm-mindspore does not support LoRA yet.")

    # vLLM's base classes log a warning that names every method of their interface that a worker leaves out, or want them all.
    add_lora = remove_lora = pin_lora = list_loras = _no_lora

    def profile(self, is_start: bool = True) -> NoReturn:
        raise UserError("vllm-mindspore does not support profiling through vLLM yet.")
