"""Whether the platform that vLLM will really use is ours. vLLM swallows what a platform plugin raises and goes on without it."""

from __future__ import annotations

import os

from vllm_mindspore.cli.checks.finding import Finding, probe

_CODE = """
import json
from vllm.platforms import current_platform
from vllm.plugins import load_general_plugins
load_general_plugins()  # where vLLM 0.6.6 gets our platform
kind = type(current_platform)
print(json.dumps(f"{kind.__module__}.{kind.__qualname__}"))
"""


def run() -> list[Finding]:
    allowed = os.environ.get("VLLM_PLUGINS")
    if allowed is not None and "mindspore" not in allowed.split(","):
        return [
            Finding("problem", f"VLLM_PLUGINS={allowed!r} keeps vLLM from loading this plugin", "unset VLLM_PLUGINS")
        ]
    found = probe(_CODE)
    if found.result is None:
        return [
            Finding(
                "problem",
                f"vLLM has no platform to run on: {found.error}",
                "pip install --force-reinstall --no-deps vllm-mindspore",
            )
        ]
    if not found.result.startswith("vllm_mindspore."):
        return [
            Finding(
                "problem",
                f"vLLM picks the platform {found.result} instead of this plugin's",
                "pip install --force-reinstall --no-deps vllm-mindspore",
            )
        ]
    return [Finding("ok", f"vLLM picks the platform {found.result}")]
