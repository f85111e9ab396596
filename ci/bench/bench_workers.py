"""Workers for what a step consists of: ours with a clock in it, and ones without a network. vLLM takes them by `worker_cls`.

With the latter, everything of vLLM and of the adapter runs and no kernel does: what is left of a step, of the start-up and of the memory is not
the network's.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from network import Network

from vllm_mindspore.compat.v0_9_1.worker import MindSporeWorker
from vllm_mindspore.engine.step import StepBatch, StepOutput

BLOCKS = 4096


class TimedWorker(MindSporeWorker):  # type: ignore[misc]
    """Notes for each step: its number of tokens, when it began, seconds in the graph's launches, when it ended."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._steps: list[tuple[int, float, float, float]] = []
        self._launched = 0.0
        self._weights = 0

    def init_device(self) -> None:
        super().init_device()
        self._time_launches()

    def load_model(self) -> None:
        super().load_model()
        self._weights = sum(parameter.nbytes for parameter in self.network.get_parameters())

    def _time_launches(self) -> None:
        from vllm_mindspore.kernels import ops

        launch = ops.LaunchCapture.launch

        def timed(capture: Any) -> None:
            started = time.perf_counter()
            launch(capture)
            self._launched += time.perf_counter() - started

        ops.LaunchCapture.launch = timed  # type: ignore[method-assign]

    def execute_model(self, scheduler_output: Any) -> Any:
        self._launched = 0.0
        began = time.perf_counter()
        output = super().execute_model(scheduler_output)
        self._steps.append((scheduler_output.total_num_scheduled_tokens, began, self._launched, time.perf_counter()))
        return output

    def taken_steps(self) -> list[tuple[int, float, float, float]]:
        """What was noted since the last call."""
        steps, self._steps = self._steps, []
        return steps

    def memory(self) -> dict[str, int]:
        """Bytes: of this process at its peak, of its weights, of its KV cache."""
        with open("/proc/self/status") as status:
            peak = next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM:"))
        return {
            "peak": peak,
            "weights": self._weights,
            "kv cache": self.cache_config.num_gpu_blocks * self.bytes_per_block(),
        }


class LongWorker(TimedWorker):
    """Computes no prompts, which would take minutes: their keys and values are drawn. What a step of decoding costs does not depend on them."""

    def init_device(self) -> None:
        super().init_device()
        from vllm_mindspore.engine.runner import ModelRunner
        from vllm_mindspore.kernels import ops

        cache_array, execute = ops.cache_array, ModelRunner.execute
        draw = np.random.default_rng(0)

        def drawn(*shape_and_dtype: Any) -> np.ndarray:
            array = cache_array(*shape_and_dtype)
            numbers = draw.standard_normal(array.shape[1:], np.float32)
            array[:] = numbers.view(np.uint32) >> 16  # bfloat16, and memory that is really there
            return array

        def execute_decoding(runner: Any, batch: StepBatch) -> StepOutput:
            if len(batch.token_ids) == len(batch.q_seq_lens):
                return execute(runner, batch)
            rows, config = len(batch.logits_indices), runner.model.config
            hidden = np.zeros((len(batch.token_ids), config.hidden_size), np.float32)
            return StepOutput(np.zeros((rows, config.vocab_size), np.float32), np.zeros(rows, np.int32), hidden)

        ops.cache_array = drawn
        ModelRunner.execute = execute_decoding  # type: ignore[method-assign]


class NullRunner:
    """Stands in for `engine.runner.ModelRunner`: every token is followed by the same one. `compute` is what it does meanwhile."""

    def __init__(
        self, max_num_tokens: int, max_num_seqs: int, hidden_size: int, vocab_size: int, compute: Callable[[], None]
    ) -> None:
        self._compute = compute
        self._logits = np.zeros((max_num_seqs, vocab_size), np.float32)
        self._tokens = np.full(max_num_seqs, 100, np.int32)
        self._hidden = np.zeros((max_num_tokens, hidden_size), np.float32)

    def warm_up(self) -> None:
        pass

    def execute(self, batch: StepBatch) -> StepOutput:
        rows = len(batch.logits_indices)
        self._compute()
        if len(batch.token_ids) > rows:
            # A prompt takes a while, or the first sequence would be done before the last request has come.
            time.sleep(0.05)
        return StepOutput(self._logits[:rows], self._tokens[:rows], self._hidden[: len(batch.token_ids)])

    def compute_logits(self, hidden_states: np.ndarray) -> np.ndarray:
        return self._logits[: len(hidden_states)]


class NullWorker(TimedWorker):
    """Neither MindSpore nor weights nor a KV cache."""

    def init_device(self) -> None:
        pass

    def load_model(self) -> None:
        pass

    def determine_available_memory(self) -> int:
        return BLOCKS * self.bytes_per_block()

    def initialize_from_config(self, kv_cache_config: Any) -> None:
        scheduler, config = self.scheduler_config, self.network_config
        runner = NullRunner(
            scheduler.max_num_batched_tokens,
            scheduler.max_num_seqs,
            config.hidden_size,
            config.vocab_size,
            self.compute,
        )
        self.model_runner = self.model_runner_class(self.vllm_config, runner)

    def compute(self) -> None:
        """Nothing."""


class ReadingWorker(NullWorker):
    """Reads as many bytes as there are weights and makes nothing of them, so that Python finds the caches as a network leaves them."""

    def load_model(self) -> None:
        self._bytes = np.ones(Network(Path(self.model_config.model)).weight_bytes // 8, np.int64)

    def compute(self) -> None:
        started = time.perf_counter()
        self._bytes.max()
        self._launched += time.perf_counter() - started
