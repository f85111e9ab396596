"""What this adapter refuses at start-up: what all do, and what came with vLLM 0.7 and 0.8."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllm_mindspore.compat.common import refusals

if TYPE_CHECKING:
    from vllm.config import VllmConfig


def check(config: VllmConfig) -> None:
    """Raise if the configuration asks for anything that we cannot do.

    Raises:
        StartupRefused: a line for each such thing.
    """
    particular = [
        *refusals.scaled_kv_caches(config),
        *refusals.other_implementations(config),
        *refusals.data_parallelism(config),
    ]
    refusals.check(config, executors=("uni", "mp"), particular=particular)
