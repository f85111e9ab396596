"""The platform: how vLLM 0.7.3 sees MindSpore.

vLLM instantiates it in the middle of `import vllm`, so this module imports of vLLM only what is loaded by then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from vllm.platforms.interface import Platform, PlatformEnum

from vllm_mindspore.compat.common.refusal import no_quantization

if TYPE_CHECKING:
    from vllm.config import VllmConfig
    from vllm.utils import FlexibleArgumentParser

_WORKER = "vllm_mindspore.compat.v0_7_3.worker.MindSporeWorker"


class MindSporePlatform(Platform):
    """Torch on the host stays on the CPU; the network, its weights and its KV cache are MindSpore's."""

    _enum = PlatformEnum.OOT
    device_name = "mindspore"
    device_type = "cpu"
    dispatch_key = "CPU"

    @classmethod
    def get_device_name(cls, device_id: int = 0) -> str:
        return cls.device_name

    @classmethod
    def is_async_output_supported(cls, enforce_eager: bool | None) -> bool:
        return True

    @classmethod
    def is_pin_memory_available(cls) -> bool:
        return False

    @classmethod
    def verify_quantization(cls, quant: str) -> NoReturn:
        raise no_quantization(quant)

    @classmethod
    def pre_register_and_update(cls, parser: FlexibleArgumentParser | None = None) -> None:
        """Called with a parser when vLLM builds its command line, without one before it builds a configuration."""
        if parser is None:
            from vllm_mindspore.compat.v0_7_3 import engine_choice

            engine_choice.begin()

    @classmethod
    def check_and_update_config(cls, vllm_config: VllmConfig) -> None:
        """Refuse what we cannot do, by name, and fill in what vLLM leaves to the platform.

        Raises:
            StartupRefused: with a sentence for each thing that is not supported.
        """
        from vllm.config import CompilationLevel

        from vllm_mindspore.compat.common.v0 import configuration
        from vllm_mindspore.compat.v0_7_3 import refusals

        if vllm_config.model_config is None:  # an empty configuration, as vLLM makes for itself in passing
            return
        refusals.check(vllm_config)
        configuration.fill_in(vllm_config, _WORKER)
        vllm_config.compilation_config.level = CompilationLevel.NO_COMPILATION
