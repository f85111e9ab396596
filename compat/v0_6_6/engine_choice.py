"""V0 is vLLM 0.6.6's engine; its V1 is an early draft, which `VLLM_USE_V1=1` asks for."""

from __future__ import annotations

from collections.abc import Iterator

import vllm.envs as envs


def refusals() -> Iterator[str]:
    """Sentences about the engine that the user asked for."""
    if envs.VLLM_USE_V1:
        yield (
            "VLLM_USE_V1=1 asks for the early V1 engine of vLLM 0.6.6, which vllm-mindspore does not run: unset VLLM_USE_V1, "
            "or install vLLM 0.8.3 or 0.9.1 for V1."
        )
