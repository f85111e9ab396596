"""Takes memory from the system before a step writes it, in a thread of low priority."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from vllm_mindspore.kernels import ops

_BYTES_AHEAD = 256 << 20


class MemoryAhead:
    """A thread of low priority that keeps some memory of a KV cache ahead of the blocks in use.

    A system hands memory out as it is touched first, and clears it, or asks its own host for it: for a new block in each layer that took a quarter
    of a second on one virtual machine, in the middle of a step. Schedulers use blocks in ascending order until all have been used once.

    Args:
        arrays: `[num_blocks, ...]` each, that share their blocks' numbers.
    """

    def __init__(self, arrays: Sequence[np.ndarray[Any, Any]]) -> None:
        self._arrays = arrays
        self._num_blocks = len(arrays[0])
        self._blocks_ahead = max(1, _BYTES_AHEAD // sum(array[0].nbytes for array in arrays))
        self._wanted = 0  # blocks from the first on
        self._more = threading.Event()
        self._stopped = np.zeros(1, np.int32)

    def start(self) -> None:
        """Begin to take memory for the first blocks."""
        self.used(0)
        threading.Thread(target=self._take, name="memory", daemon=True).start()

    def used(self, block: int) -> None:
        """Tell which block a step has come to."""
        if block + self._blocks_ahead // 2 >= self._wanted:
            self._wanted = block + self._blocks_ahead
            self._more.set()

    def stop(self) -> None:
        """Take no more memory."""
        self._stopped[0] = 1
        self._more.set()

    def _take(self) -> None:
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)
        taken = 0
        while taken < self._num_blocks and not self._stopped[0]:
            self._more.wait()
            self._more.clear()
            wanted = min(self._wanted, self._num_blocks)
            ops.take_memory(self._arrays, taken, wanted, self._stopped)
            taken = wanted
