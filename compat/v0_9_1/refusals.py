"""What this adapter refuses at start-up beyond what all V1 adapters refuse: options that came with vLLM 0.9."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from vllm_mindspore.compat.common.v1 import refusals

if TYPE_CHECKING:
    from vllm.config import VllmConfig


def check(config: VllmConfig) -> None:
    """Raise if the configuration asks for anything that we cannot do.

    Raises:
        StartupRefused: a line for each such thing.
    """
    refusals.check(config, _particular(config))


def _particular(config: VllmConfig) -> Iterator[str]:
    if config.model_config.enable_prompt_embeds:
        yield refusals.unsupported("prompt embeddings as input", "remove --enable-prompt-embeds")
    if config.load_config.pt_load_map_location != "cpu":
        yield refusals.unsupported("--pt-load-map-location other than cpu", "remove it")
