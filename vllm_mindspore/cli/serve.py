"""`vllm-mindspore serve`: `vllm serve` with the same flags, sure to run on MindSpore or to say why not."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Sequence
from importlib.metadata import distribution
from typing import Callable

from vllm_mindspore.origin import install_again
from vllm_mindspore.plugin import PluginFailed

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
    from vllm_mindspore.compat.common.refusal import StartupRefused

    sys.argv = ["vllm", "serve", *arguments]
    try:
        _command("vllm")()
    except StartupRefused as refusal:
        for engine in multiprocessing.active_children():  # vLLM 0.6.6 starts it before it looks at the options
            engine.terminate()
            engine.join()
        print(f"vllm-mindspore serve: {refusal}", file=sys.stderr)
        return 1
    return 0


def _command(name: str) -> Callable[[], object]:
    """The function behind a command that an installed package offers: releases of vLLM keep theirs in different places."""
    (entry_point,) = (script for script in distribution("vllm").entry_points if script.name == name)
    return entry_point.load()


def _obstacle() -> str | None:
    """Why vLLM would not run on our platform, in one sentence."""
    allowed = os.environ.get("VLLM_PLUGINS")
    if allowed is not None and _PLUGIN not in allowed.split(","):
        return f"VLLM_PLUGINS={allowed!r} keeps vLLM from loading this plugin: add {_PLUGIN} to it or unset it."
    try:
        from vllm.platforms import current_platform
        from vllm.plugins import load_general_plugins

        load_general_plugins()  # where vLLM 0.6.6, which has no plugins for platforms, gets ours
    except ModuleNotFoundError as error:
        return f"vLLM cannot be imported ({error}): install it, for instance with {install_again('vllm091')}."
    except (RuntimeError, PluginFailed) as error:  # two platform plugins, or ours has found nothing to offer
        return str(error)
    chosen = type(current_platform)
    if not chosen.__module__.startswith("vllm_mindspore."):
        return (
            f"vLLM picked the platform {chosen.__module__}.{chosen.__qualname__} instead of this plugin's: "
            "run vllm-mindspore check-env to see why."
        )
    return None
