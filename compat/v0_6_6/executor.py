"""The executor: one worker in the engine's process, for the synchronous and the asynchronous engine."""

from __future__ import annotations

from typing import Any

from vllm.executor.gpu_executor import GPUExecutorAsync


class OneWorkerExecutor(GPUExecutorAsync):
    """vLLM's own, which has nothing of a GPU."""

    def _run_workers(self, method: str, *args: Any) -> Any:
        """Call the worker. So the engine starts and stops a profile with every executor whose class is not `GPUExecutor`."""
        return getattr(self.driver_worker, method)(*args)
