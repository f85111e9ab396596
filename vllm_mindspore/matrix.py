"""Which adapter goes with the installed vLLM."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from vllm_mindspore.errors import UserError


@dataclass(frozen=True)
class Row:
    """A vLLM release that we run with."""

    vllm: str
    adapter: str
    """Name of its package in `vllm_mindspore.compat`."""


ROWS = (Row(vllm="0.9.1", adapter="v0_9_1"),)


def row_for_installed_vllm() -> Row:
    """The row of the installed vLLM.

    Raises:
        UserError: vLLM is missing, or a release that we have no adapter for.
    """
    known = ", ".join(row.vllm for row in ROWS)
    try:
        # "0.9.1+cpu" and the like are builds of the same release.
        installed = version("vllm").partition("+")[0]
    except PackageNotFoundError:
        raise UserError(f"vLLM is not installed: install one of {known}.") from None
    for row in ROWS:
        if row.vllm == installed:
            return row
    raise UserError(f"vLLM {installed} is installed, and vllm-mindspore has no adapter for it: install one of {known}.")
