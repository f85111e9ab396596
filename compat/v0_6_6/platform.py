"""The platform: how vLLM 0.6.6 sees MindSpore.

vLLM never makes an instance: `patches.py` gives this class to the one that it made for the platform that it found.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllm.platforms.interface import Platform, PlatformEnum

from vllm_mindspore.compat.common.platform import OnTheHost

if TYPE_CHECKING:
    from vllm.config import VllmConfig

_WORKER = "vllm_mindspore.compat.v0_6_6.worker.MindSporeWorker"


class MindSporePlatform(OnTheHost, Platform):
    """Torch on the host stays on the CPU; the network, its weights and its KV cache are MindSpore's."""

    _enum = PlatformEnum.UNSPECIFIED

    @classmethod
    def check_and_update_config(cls, vllm_config: VllmConfig) -> None:
        """Refuse what we cannot do, by name, and fill in what vLLM leaves to the platform.

        Runs in the front end and again in the engine's process.

        Raises:
            StartupRefused: with a sentence for each thing that is not supported.
        """
        from vllm.config import CompilationLevel

        from vllm_mindspore.compat.common.configuration import fill_in
        from vllm_mindspore.compat.v0_6_6 import refusals
        from vllm_mindspore.compat.v0_6_6.executor import OneWorkerExecutor

        if vllm_config.model_config is None:  # an empty configuration, as vLLM makes for itself in passing
            return
        parallel = vllm_config.parallel_config
        if parallel.distributed_executor_backend in (None, "mp") and parallel.world_size == 1:
            # For "cpu" vLLM would take its CPUExecutor, which puts the async engine's worker into a process of its own. This one is
            # for one worker in the engine's process, as "mp" is.
            parallel.distributed_executor_backend = OneWorkerExecutor
        refusals.check(vllm_config)
        fill_in(vllm_config, _WORKER, "V0")
        vllm_config.compilation_config.level = CompilationLevel.NO_COMPILATION
