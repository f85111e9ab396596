"""Tell vLLM's registry about our networks."""

from __future__ import annotations

from vllm import ModelRegistry

from vllm_mindspore.compat.common import models


def register() -> None:
    """Called by the plugin in every process of vLLM; idempotent."""
    models.register(ModelRegistry)
