"""Takes memory from the system before a step writes it, in a thread of low priority."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from vllm_mindspore.engine.memory import available_memory, total_memory
from vllm_mindspore.kernels import ops

_BYTES_AHEAD = 256 << 20
_BYTES_WHEN_IDLE = 64 << 20  # a step that comes meanwhile has a seventh of a second beside it
_QUIET_SECONDS = 5.0  # without a step, after which an engine has nothing to do: it is ready sooner after its cache is


class MemoryAhead:
    """A thread of low priority that keeps some memory of a KV cache ahead of the blocks in use, and takes the rest while there are no steps.

    A system hands memory out as it is touched first, and clears it, or asks its own host for it: for a new block in each layer that took a quarter
    of a second on one virtual machine, in the middle of a step. Schedulers use blocks in ascending order until all have been used once. Even a thread of
    low priority takes a tenth of a core from steps beside it, so that as much as possible is done when there are none, as long as a quarter of the machine's
    memory is free.

    Args:
        arrays: `[num_blocks, ...]` each, that share their blocks' numbers.
    """

    def __init__(self, arrays: Sequence[np.ndarray[Any, Any]]) -> None:
        self._arrays = arrays
        self._num_blocks = len(arrays[0])
        block_bytes = sum(array[0].nbytes for array in arrays)
        self._blocks_ahead = max(1, _BYTES_AHEAD // block_bytes)
        self._blocks_when_idle = max(1, _BYTES_WHEN_IDLE // block_bytes)
        self._steps, self._step_under_way = 0, False
        self._wanted = self._blocks_ahead  # blocks from the first on
        self._more = threading.Event()
        self._stopped = np.zeros(1, np.int32)

    def start(self) -> None:
        """Begin to take memory for the first blocks."""
        self._more.set()
        threading.Thread(target=self._take, name="memory", daemon=True).start()

    def used(self, block: int) -> None:
        """Tell which block a step that begins has come to."""
        self._steps, self._step_under_way = self._steps + 1, True
        if block + self._blocks_ahead // 2 >= self._wanted:
            self._wanted = block + self._blocks_ahead
            self._more.set()

    def rest(self) -> None:
        """Tell that the step is done."""
        self._step_under_way = False

    def stop(self) -> None:
        """Take no more memory."""
        self._stopped[0] = 1
        self._more.set()

    def _take(self) -> None:
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)
        taken, steps, idle = 0, 0, False
        while taken < self._num_blocks and not self._stopped[0]:
            asked = self._more.wait(0 if idle else _QUIET_SECONDS)
            self._more.clear()
            idle = (
                not asked
                and steps == self._steps
                and not self._step_under_way
                and available_memory() > total_memory() // 4
            )
            steps = self._steps
            wanted = min(taken + self._blocks_when_idle if idle else self._wanted, self._num_blocks)
            if wanted > taken:
                ops.take_memory(self._arrays, taken, wanted, self._stopped)
                taken = wanted
