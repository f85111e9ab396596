"""What this adapter refuses at start-up: nothing beyond what all V1 adapters refuse."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllm_mindspore.compat.common.v1 import refusals

if TYPE_CHECKING:
    from vllm.config import VllmConfig


def check(config: VllmConfig) -> None:
    """Raise if the configuration asks for anything that we cannot do.

    Raises:
        StartupRefused: a line for each such thing.
    """
    refusals.check(config, ())
