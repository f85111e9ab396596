"""From one engine's platform to the other's.

vLLM asks for its platform class once, while it is being imported; which engine it runs is settled later, with the configuration. So the
platform that was loaded may have to leave a configuration to the platform of the other engine of the same release.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from vllm_mindspore.compat.common.refusal import StartupRefused
from vllm_mindspore.matrix import row_for_installed_vllm


def hand_over(engine: str, vllm_config: Any) -> None:
    """Let the platform for an engine ("V0" or "V1") of the installed vLLM check and update the configuration.

    Raises:
        StartupRefused: there is no adapter for that engine, or its platform refuses.
    """
    row = row_for_installed_vllm(engine)
    if row.engine != engine:
        raise StartupRefused(
            f"vLLM chose its {engine} engine for this configuration, and vllm-mindspore has no adapter for it with vLLM {row.vllm}: "
            "remove the option that vLLM names in its warning above, or unset VLLM_USE_V1."
        )
    platform = import_module(f"vllm_mindspore.compat.{row.adapter}.platform")
    platform.MindSporePlatform.check_and_update_config(vllm_config)
