"""The platform: what vLLM 0.7.3 asks of it beyond what all V0 engines ask.

vLLM instantiates it in the middle of `import vllm`, so this module imports of vLLM only what is loaded by then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllm_mindspore.compat.common.v0.platform import V0Platform

if TYPE_CHECKING:
    from vllm.config import VllmConfig
    from vllm.utils import FlexibleArgumentParser


class MindSporePlatform(V0Platform):
    worker_cls = "vllm_mindspore.compat.v0_7_3.worker.MindSporeWorker"

    @classmethod
    def pre_register_and_update(cls, parser: FlexibleArgumentParser | None = None) -> None:
        """Called with a parser when vLLM builds its command line, without one before it builds a configuration."""
        if parser is None:
            from vllm_mindspore.compat.common.configuration import decline_vllms_latent_attention
            from vllm_mindspore.compat.v0_7_3 import engine_choice

            engine_choice.begin()
            decline_vllms_latent_attention()

    @classmethod
    def refuse(cls, vllm_config: VllmConfig) -> None:
        from vllm_mindspore.compat.v0_7_3.refusals import check

        check(vllm_config)
