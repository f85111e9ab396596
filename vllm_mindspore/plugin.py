"""Entry points that vLLM calls in every process, `platform()` in the middle of `import vllm`.

So this module imports nothing heavy. And vLLM swallows what a plugin raises and goes on without it, on whatever platform it finds next:
`platform()` therefore names a stand-in that fails, and `general()` raises what vLLM does not catch.
"""

from __future__ import annotations

import logging
from typing import NoReturn

logger = logging.getLogger(__name__)

_reason = ""


class PluginFailed(BaseException):
    """vLLM cannot run on MindSpore. Not an `Exception`: those of a general plugin vLLM logs and forgets."""


def platform() -> str:
    """Dotted name of the platform class for the installed vLLM; vLLM imports and instantiates it.

    If there is none, the answer names `refuse`, so that `import vllm` fails with the reason.
    """
    global _reason
    try:
        return f"{_adapter()}.platform.MindSporePlatform"
    except Exception as error:
        reason = _sentence(error)
        if reason != _reason:  # vLLM asks twice
            logger.error(reason)
        _reason = reason
        return f"{__name__}.refuse"


def refuse() -> NoReturn:
    """Stands in for a platform class when there is none to offer.

    Raises:
        RuntimeError: always, with the reason that `platform` found.
    """
    raise RuntimeError(_reason)


def general() -> None:
    """Tell this process's vLLM about our networks and let our log lines appear among its own. vLLM may call it several times.

    Raises:
        PluginFailed: with the reason.
    """
    from importlib import import_module

    try:
        import_module(f"{_adapter()}.models").register()
    except Exception as error:
        raise PluginFailed(_sentence(error)) from error


def _sentence(error: Exception) -> str:
    return (
        f"vllm-mindspore cannot be vLLM's platform: {error} "
        "Run `vllm-mindspore check-env` to see what is wrong; set VLLM_PLUGINS to an empty string to run vLLM without vllm-mindspore."
    )


def _adapter() -> str:
    from vllm_mindspore.matrix import row_for_installed_vllm

    return f"vllm_mindspore.compat.{row_for_installed_vllm().adapter}"
