"""Entry points that vLLM calls in every process, `platform()` in the middle of `import vllm`.

So this module imports nothing heavy, and it never lets an exception out of `platform()`: vLLM swallows what a platform plugin raises and
goes on without it, on whatever platform it finds next.
"""

from __future__ import annotations

import logging
from typing import NoReturn

logger = logging.getLogger(__name__)

_reason = ""


def platform() -> str:
    """Dotted name of the platform class for the installed vLLM; vLLM imports and instantiates it.

    If there is none, the answer names `refuse`, so that `import vllm` fails with the reason.
    """
    global _reason
    try:
        return f"{_adapter()}.platform.MindSporePlatform"
    except Exception as error:
        reason = (
            f"vllm-mindspore cannot be vLLM's platform: {error} "
            "Run `vllm-mindspore check-env` to see what is wrong; set VLLM_PLUGINS to an empty string to run vLLM without vllm-mindspore."
        )
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
    """Tell this process's vLLM about our networks and let our log lines appear among its own. vLLM may call it several times."""
    from importlib import import_module

    import_module(f"{_adapter()}.models").register()


def _adapter() -> str:
    from vllm_mindspore.matrix import row_for_installed_vllm

    return f"vllm_mindspore.compat.{row_for_installed_vllm().adapter}"
