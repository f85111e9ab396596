"""V0 is vLLM 0.7.3's engine; its V1 is an early draft, which `VLLM_USE_V1=1` asks for."""

from __future__ import annotations

import vllm.envs as envs

from vllm_mindspore.compat.common.refusal import StartupRefused


def begin() -> None:
    """Before vLLM builds a configuration.

    Raises:
        StartupRefused: the user asked for V1.
    """
    if envs.VLLM_USE_V1:
        raise StartupRefused(
            "VLLM_USE_V1=1 asks for the early V1 engine of vLLM 0.7.3, which vllm-mindspore does not run: unset VLLM_USE_V1, "
            "or install vLLM 0.8.3 or 0.9.1 for V1."
        )
