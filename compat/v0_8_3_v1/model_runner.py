"""One step: how this release's batch and grammar bitmask go into it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllm_mindspore.compat.common.v1.model_runner import V1ModelRunner
from vllm_mindspore.compat.v0_8_3_v1.request_batch import RequestBatch
from vllm_mindspore.compat.v0_8_3_v1.sampling import bitmask_rows

if TYPE_CHECKING:
    from vllm.config import VllmConfig

    from vllm_mindspore.engine.runner import ModelRunner


class MindSporeModelRunner(V1ModelRunner):
    def __init__(self, vllm_config: VllmConfig, runner: ModelRunner) -> None:
        super().__init__(RequestBatch(vllm_config), bitmask_rows, runner)
