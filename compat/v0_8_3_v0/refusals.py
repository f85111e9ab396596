"""What this adapter refuses at start-up beside what every V0 adapter does."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from vllm_mindspore.compat.common.refusal import unsupported
from vllm_mindspore.compat.common.v0 import refusals

if TYPE_CHECKING:
    from vllm.config import VllmConfig


def check(config: VllmConfig) -> None:
    """Raise if the configuration asks for anything that we cannot do.

    Raises:
        StartupRefused: a line for each such thing.
    """
    refusals.check(config, *_features(config))


def _features(config: VllmConfig) -> Iterator[str]:
    if config.cache_config.calculate_kv_scales:
        yield unsupported("scaled KV caches", "remove --calculate-kv-scales")
    if config.model_config.model_impl == "transformers":
        yield unsupported("--model-impl transformers", "remove it; the network is MindSpore's")
    if config.parallel_config.data_parallel_size > 1:
        size = config.parallel_config.data_parallel_size
        yield unsupported("data parallelism", f"set --data-parallel-size to 1, it is {size}")
    if config.parallel_config.enable_expert_parallel:
        yield unsupported("expert parallelism", "remove --enable-expert-parallel")
    if config.additional_config:
        yield f"vllm-mindspore has no options of its own in --additional-config: remove {config.additional_config}."
