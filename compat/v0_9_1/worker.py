"""The worker, which runs in the engine's process."""

from __future__ import annotations

from vllm_mindspore.compat.common.v1.worker import V1Worker
from vllm_mindspore.compat.v0_9_1.model_runner import MindSporeModelRunner


class MindSporeWorker(V1Worker):
    model_runner_class = MindSporeModelRunner
