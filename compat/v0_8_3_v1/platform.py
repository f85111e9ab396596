"""The platform: what vLLM 0.8.3's V1 asks of it beyond what all V1 engines ask.

vLLM instantiates it in the middle of `import vllm`, so this module imports of vLLM only what is loaded by then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllm_mindspore.compat.common.v1.platform import V1Platform

if TYPE_CHECKING:
    from vllm.config import VllmConfig
    from vllm.utils import FlexibleArgumentParser


class MindSporePlatform(V1Platform):
    worker_cls = "vllm_mindspore.compat.v0_8_3_v1.worker.MindSporeWorker"
    cudagraph_capture_sizes = (1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192)
    """In 0.8.3 they are also the buckets of the histogram of tokens a step, of which there must be some."""

    @classmethod
    def pre_register_and_update(cls, parser: FlexibleArgumentParser | None = None) -> None:
        """Called with a parser when vLLM builds its command line, without one before it builds a configuration."""
        from vllm_mindspore.compat.common.configuration import decline_vllms_latent_attention

        super().pre_register_and_update(parser)
        if parser is None:
            decline_vllms_latent_attention()

    @classmethod
    def asks_for_v0(cls, vllm_config: VllmConfig) -> bool:
        from vllm_mindspore.compat.v0_8_3_v1.engine_choice import asks_for_v0

        return asks_for_v0(vllm_config)

    @classmethod
    def refuse(cls, vllm_config: VllmConfig) -> None:
        from vllm_mindspore.compat.v0_8_3_v1.refusals import check

        check(vllm_config)

    @classmethod
    def check_and_update_config(cls, vllm_config: VllmConfig) -> None:
        from vllm_mindspore.compat.v0_8_3_v1 import patches

        super().check_and_update_config(vllm_config)
        if vllm_config.model_config is not None:
            patches.apply()
