"""These tests are of what is particular to vLLM 0.6.6, and collected only where it is installed."""

from __future__ import annotations

from vllm_mindspore.errors import UserError
from vllm_mindspore.matrix import row_for_installed_vllm


def _adapter() -> str:
    try:
        return row_for_installed_vllm().adapter
    except UserError:  # no vLLM
        return ""


collect_ignore_glob = [] if _adapter() == "v0_6_6" else ["test_*.py"]
