"""The platform: how a V1 engine of vLLM sees MindSpore.

vLLM instantiates it in the middle of `import vllm`, so this module imports of vLLM only what is loaded by then.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, ClassVar

from vllm.logger import init_logger
from vllm.platforms.interface import Platform, PlatformEnum

from vllm_mindspore.compat.common.configuration import fill_in
from vllm_mindspore.compat.common.forked import VLLM_COMMAND
from vllm_mindspore.compat.common.hand_over import hand_over
from vllm_mindspore.compat.common.platform import OnTheHost
from vllm_mindspore.compat.common.refusal import StartupRefused
from vllm_mindspore.compat.common.v1 import engine_choice

if TYPE_CHECKING:
    from vllm.config import ModelConfig, VllmConfig
    from vllm.utils import FlexibleArgumentParser

logger = init_logger("vllm_mindspore.compat.common.v1.platform")

_THREADS = "OMP_NUM_THREADS"
_START_METHOD = "VLLM_WORKER_MULTIPROC_METHOD"
_CHOSEN_START_METHOD = os.environ.get(_START_METHOD)
"""The user's choice: the `vllm` command sets the variable only after its imports, which load this module."""


class V1Platform(OnTheHost, Platform):
    """Torch on the host stays on the CPU; the network, its weights and its KV cache are MindSpore's.

    `get_device_total_memory` is left out on purpose: vLLM uses it, if at all, to give machines with 70 GiB or more
    the default step sizes of an H100.
    """

    _enum = PlatformEnum.OOT
    simple_compile_backend = "eager"

    worker_cls: ClassVar[str]
    """Dotted name of the adapter's worker."""
    cudagraph_capture_sizes: ClassVar[tuple[int, ...]] = ()
    """There are no CUDA graphs."""

    @classmethod
    def asks_for_v0(cls, vllm_config: VllmConfig) -> bool:
        """Whether there is an option, the dtype apart, for which this release falls back to its V0 engine."""
        raise NotImplementedError

    @classmethod
    def refuse(cls, vllm_config: VllmConfig) -> None:
        """Raise `StartupRefused` if the configuration asks for anything that we cannot do in this release."""
        raise NotImplementedError

    @classmethod
    def pre_register_and_update(cls, parser: FlexibleArgumentParser | None = None) -> None:
        """Called with a parser when vLLM builds its command line, without one before it builds a configuration."""
        if parser is None:
            engine_choice.begin()

    @classmethod
    def supports_v1(cls, model_config: ModelConfig) -> bool:
        engine_choice.choose_v1()
        return True

    @classmethod
    def check_and_update_config(cls, vllm_config: VllmConfig) -> None:
        """Refuse what we cannot do, by name, and fill in what vLLM leaves to the platform.

        Runs in the front end and again in the engine's process. What runs on V0 is left to the platform for V0, once it is
        known to ask for nothing that no engine here can do.

        Raises:
            StartupRefused: with a sentence for each thing that is not supported.
        """
        from vllm.config import CompilationLevel

        if vllm_config.model_config is None:  # an empty configuration, as vLLM makes for itself in passing
            return
        try:
            v1 = engine_choice.settle(vllm_config, cls.asks_for_v0)
            cls.refuse(vllm_config)
            if not v1:
                hand_over("V0", vllm_config)
                return
        except StartupRefused:
            engine_choice.forget()
            raise

        fill_in(vllm_config, cls.worker_cls, "V1")
        vllm_config.compilation_config.level = CompilationLevel.NO_COMPILATION
        vllm_config.compilation_config.cudagraph_capture_sizes = list(cls.cudagraph_capture_sizes)
        _settle_start_method()


def _settle_start_method() -> None:
    """Fork the engine's process, which saves importing vLLM once more (18 s on a small machine), unless that is unsafe or unwanted."""
    if "mindspore" in sys.modules:
        if os.environ.get(_START_METHOD) != "spawn":
            # A child forked after MindSpore has run hangs at its first kernel.
            logger.info("MindSpore is loaded in this process, so vLLM's processes are spawned instead of forked.")
            os.environ[_START_METHOD] = "spawn"
        if _THREADS not in os.environ:
            os.unsetenv(_THREADS)  # MindSpore set it to 1 behind Python's back, and what is spawned would inherit that
    elif _CHOSEN_START_METHOD is None and VLLM_COMMAND in sys.modules:
        # The `vllm` command asks for spawn, as some devices must not be touched before a fork. Ours is not.
        os.environ[_START_METHOD] = "fork"
