"""The platform: how a V0 engine of vLLM sees MindSpore.

vLLM instantiates it in the middle of `import vllm`, so this module imports of vLLM only what is loaded by then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from vllm.platforms.interface import Platform, PlatformEnum

from vllm_mindspore.compat.common.platform import OnTheHost

if TYPE_CHECKING:
    from vllm.config import VllmConfig


class V0Platform(OnTheHost, Platform):
    """Torch on the host stays on the CPU; the network, its weights and its KV cache are MindSpore's."""

    _enum = PlatformEnum.OOT

    worker_cls: ClassVar[str]
    """Dotted name of the adapter's worker."""

    @classmethod
    def refuse(cls, vllm_config: VllmConfig) -> None:
        """Raise `StartupRefused` if the configuration asks for anything that we cannot do in this release."""
        raise NotImplementedError

    @classmethod
    def check_and_update_config(cls, vllm_config: VllmConfig) -> None:
        """Refuse what we cannot do, by name, and fill in what vLLM leaves to the platform.

        Raises:
            StartupRefused: with a sentence for each thing that is not supported.
        """
        import vllm.envs as envs
        from vllm.config import CompilationLevel

        from vllm_mindspore.compat.common.configuration import fill_in
        from vllm_mindspore.compat.common.hand_over import hand_over

        if vllm_config.model_config is None:  # an empty configuration, as vLLM makes for itself in passing
            return
        if envs.VLLM_USE_V1:  # set since vLLM was imported
            hand_over("V1", vllm_config)
            return
        cls.refuse(vllm_config)
        fill_in(vllm_config, cls.worker_cls, "V0")
        vllm_config.compilation_config.level = CompilationLevel.NO_COMPILATION
