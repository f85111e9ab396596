"""What this adapter refuses at start-up beside what all do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from vllm_mindspore.compat.common import refusals
from vllm_mindspore.compat.v0_6_6 import engine_choice

if TYPE_CHECKING:
    from vllm.config import VllmConfig


def check(config: VllmConfig) -> None:
    """Raise if the configuration asks for anything that we cannot do.

    Raises:
        StartupRefused: a line for each such thing.
    """
    refusals.check(config, executors=("mp",), particular=[*engine_choice.refusals(), *_features(config)])


def _features(config: VllmConfig) -> Iterator[str]:
    device = config.device_config.device_type
    if device != "cpu":
        yield f"--device {device} names a device of vLLM's own, and vllm-mindspore runs on MindSpore: remove it."
