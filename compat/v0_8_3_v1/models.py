"""What vLLM 0.8.3 may know about our networks without loading one."""

from __future__ import annotations

from typing import Any, NoReturn

from vllm_mindspore.compat.common.v1 import models


class MindSporeForCausalLM(models.MindSporeForCausalLM):
    """In 0.8.3 a class without `sample` does not generate text."""

    def sample(self, logits: Any, sampling_metadata: Any) -> NoReturn:
        raise TypeError("sampling is the worker's")


def register() -> None:
    """Register our architectures with vLLM. Idempotent."""
    models.register(MindSporeForCausalLM)
