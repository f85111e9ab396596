"""The worker of vLLM 0.6.6's V0 engine."""

from __future__ import annotations

from vllm_mindspore.compat.common.v0.worker import MindSporeWorker

__all__ = ["MindSporeWorker"]
