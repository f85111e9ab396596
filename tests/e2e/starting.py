"""Start and stop an engine."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


@contextlib.contextmanager
def started(model: Path, **options: Any) -> Iterator[Any]:
    """A `vllm.LLM` whose engine runs in a process of its own, with a KV cache of 1 GiB unless told otherwise."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
        patch.delenv("VLLM_USE_V1", raising=False)
        patch.delenv("VLLM_ENABLE_V1_MULTIPROCESSING", raising=False)
        from vllm import LLM

        llm = LLM(str(model), **options)
        try:
            yield llm
        finally:
            llm.llm_engine.engine_core.shutdown()
