"""`vllm-mindspore serve`: `vllm serve` with the same flags, sure to run on MindSpore or to say why not."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

_PLUGIN = "mindspore"
"""Name of our entry points, by which VLLM_PLUGINS lets them in."""


def run(arguments: Sequence[str]) -> int:
    """Serve a model.

    Args:
        arguments: what `vllm serve` would get.

    Returns:
        The exit code, once the server has stopped.
    """
    obstacle = _obstacle()
    if obstacle:
        print(f"vllm-mindspore serve: {obstacle}", file=sys.stderr)
        return 1
    from vllm.entrypoints.cli.main import main

    from vllm_mindspore.compat.common.refusal import StartupRefused

    sys.argv = ["vllm", "serve", *arguments]
    try:
        main()
    except StartupRefused as refusal:
        print(f"vllm-mindspore serve: {refusal}", file=sys.stderr)
        return 1
    return 0


def _obstacle() -> str | None:
    """Why vLLM would not run on our platform, in one sentence."""
    allowed = os.environ.get("VLLM_PLUGINS")
    if allowed is not None and _PLUGIN not in allowed.split(","):
        return f"VLLM_PLUGINS={allowed!r} keeps vLLM from loading this plugin: add {_PLUGIN} to it or unset it."
    try:
        from vllm.platforms import current_platform
    except ModuleNotFoundError as error:
        return (
            f"vLLM cannot be imported ({error}): install it, for instance with pip install 'vllm-mindspore[vllm091]'."
        )
    except RuntimeError as error:  # two platform plugins, or ours has found nothing to offer
        return str(error)
    chosen = type(current_platform)
    if not chosen.__module__.startswith("vllm_mindspore."):
        return (
            f"vLLM picked the platform {chosen.__module__}.{chosen.__qualname__} instead of this plugin's: "
            "run vllm-mindspore check-env to see why."
        )
    return None
