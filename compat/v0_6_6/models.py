"""Tell vLLM's registry about our networks, and vLLM about our platform."""

from __future__ import annotations

from vllm import ModelRegistry

from vllm_mindspore.compat.common import models
from vllm_mindspore.compat.v0_6_6 import patches


def register() -> None:
    """Called by the plugin in every process of vLLM; idempotent.

    vLLM 0.6.6 has no door for platforms, so ours comes in by this one, which every way to an engine passes before it looks at
    the platform.
    """
    patches.apply()
    models.register(ModelRegistry)
