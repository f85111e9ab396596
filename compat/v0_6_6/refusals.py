"""What this adapter refuses at start-up beside what every V0 adapter does."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from vllm_mindspore.compat.common.v0 import refusals
from vllm_mindspore.compat.v0_6_6 import engine_choice

if TYPE_CHECKING:
    from vllm.config import VllmConfig


def check(config: VllmConfig) -> None:
    """Raise if the configuration asks for anything that we cannot do.

    Raises:
        StartupRefused: a line for each such thing.
    """
    refusals.check(config, *engine_choice.refusals(), *_features(config))


def _features(config: VllmConfig) -> Iterator[str]:
    device = config.device_config.device_type
    if device not in ("cpu", "auto"):
        yield f"--device {device} asks vLLM for a device of its own, and this installation runs on MindSpore: remove it."
