"""What vLLM leaves to the platform to decide."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vllm.config import VllmConfig


def decline_vllms_latent_attention() -> None:
    """Tell vLLM 0.7 and 0.8 that their own kernels for latent attention are not used, before a configuration is built.

    While it is built they turn chunked prefill and prefix caching off for a DeepSeek model, which those kernels lack on a device
    like this one. Ours have both.
    """
    os.environ["VLLM_MLA_DISABLE"] = "1"


BLOCK_SIZES = {"V0": 16, "V1": 64}
"""Tokens in a block of the KV cache: V0's is what vLLM takes elsewhere; in blocks of 64 the CPU reads long contexts a third faster, see docs/kernels.md."""


def fill_in(config: VllmConfig, worker: str, engine: str) -> None:
    """Choose the worker, and the block size if the user did not.

    Args:
        config: of a model that we can run.
        worker: dotted name of the adapter's worker class.
        engine: V0 or V1.
    """
    if config.cache_config.block_size is None:
        config.cache_config.block_size = BLOCK_SIZES[engine]
    # A window only hides keys from the kernel: the blocks of the whole sequence are kept, as networks may mix layers
    # with and without one.
    config.cache_config.sliding_window = None
    parallel = config.parallel_config
    if parallel.worker_cls == "auto":
        parallel.worker_cls = worker
