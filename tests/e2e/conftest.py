"""What is particular to one adapter stands in a folder of its name, and is collected only where its vLLM is installed."""

from __future__ import annotations

from pathlib import Path

from vllm_mindspore.errors import UserError
from vllm_mindspore.matrix import rows_for_installed_vllm


def _adapters() -> set[str]:
    try:
        return {row.adapter for row in rows_for_installed_vllm()}
    except UserError:  # no vLLM
        return set()


collect_ignore = [folder.name for folder in Path(__file__).parent.glob("v*_*") if folder.name not in _adapters()]
