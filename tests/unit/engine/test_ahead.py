"""Memory of the KV cache is there before a step writes it, and what steps write stays."""

from __future__ import annotations

import ctypes
import gc
import mmap
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.checkpoints import make_checkpoint
from tests.unit.models.driver import Driver
from vllm_mindspore.engine import ahead
from vllm_mindspore.engine.memory import total_memory
from vllm_mindspore.kernels import ops

BLOCKS = 256
SHAPES = [(BLOCKS, 16, 3, 64), (BLOCKS, 16, 1, 8)]  # 6 KiB and 256 bytes a block


def taken_blocks(array: np.ndarray) -> np.ndarray:
    """Whether the system has given memory, as the system itself says, for the first byte of each block."""
    begin = array.ctypes.data // mmap.PAGESIZE * mmap.PAGESIZE
    pages = -(-(array.ctypes.data + array.nbytes - begin) // mmap.PAGESIZE)
    there = (ctypes.c_ubyte * pages)()
    libc = ctypes.CDLL(None, use_errno=True)
    assert not libc.mincore(ctypes.c_void_p(begin), ctypes.c_size_t(pages * mmap.PAGESIZE), there), ctypes.get_errno()
    first_bytes = array.ctypes.data - begin + np.arange(len(array)) * array[0].nbytes
    return np.frombuffer(there, np.uint8)[first_bytes // mmap.PAGESIZE] & 1 == 1


def wait_until(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def arrays(monkeypatch: pytest.MonkeyPatch) -> list[np.ndarray]:
    """With pages of 4 KiB, 64 blocks kept ahead, and never a quiet moment."""
    arrays = [np.frombuffer(mmap.mmap(-1, int(np.prod(shape)) * 2), np.uint16).reshape(shape) for shape in SHAPES]
    monkeypatch.setattr(ahead, "_BYTES_AHEAD", 64 * sum(array[0].nbytes for array in arrays))
    monkeypatch.setattr(ahead, "_QUIET_SECONDS", 3600)
    assert not any(taken_blocks(array).any() for array in arrays)
    return arrays


def test_blocks_are_there_some_way_ahead_of_those_in_use(arrays: list[np.ndarray]) -> None:
    memory = ahead.MemoryAhead(arrays)
    memory.start()
    wait_until(lambda: all(taken_blocks(array)[:64].all() for array in arrays))
    assert not taken_blocks(arrays[0])[64 + 1 :].any()  # two blocks may share a page
    memory.used(20)
    memory.used(100)
    wait_until(lambda: all(taken_blocks(array)[:164].all() for array in arrays))
    assert not taken_blocks(arrays[0])[164 + 1 :].any()
    memory.used(BLOCKS - 1)
    wait_until(lambda: all(taken_blocks(array).all() for array in arrays))
    assert not any(array.any() for array in arrays)
    wait_until(lambda: "memory" not in {thread.name for thread in threading.enumerate()})


def test_the_rest_is_taken_while_there_are_no_steps(arrays: list[np.ndarray], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ahead, "_QUIET_SECONDS", 0.3)
    monkeypatch.setattr(ahead, "_BYTES_WHEN_IDLE", arrays[0].nbytes // 8)
    memory = ahead.MemoryAhead(arrays)
    memory.used(0)
    memory.start()
    time.sleep(1)  # in a long step
    assert not taken_blocks(arrays[0])[64 + 1 :].any()
    memory.rest()
    wait_until(lambda: all(taken_blocks(array).all() for array in arrays))


def test_others_keep_a_quarter_of_the_memory(arrays: list[np.ndarray], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ahead, "_QUIET_SECONDS", 0.1)
    monkeypatch.setattr(ahead, "available_memory", lambda: total_memory() // 5)
    memory = ahead.MemoryAhead(arrays)
    memory.start()
    time.sleep(1)
    assert not taken_blocks(arrays[0])[64 + 1 :].any()
    memory.stop()


def test_a_stopped_one_takes_no_more(arrays: list[np.ndarray]) -> None:
    memory = ahead.MemoryAhead(arrays)
    memory.start()
    wait_until(lambda: bool(taken_blocks(arrays[-1])[63]))
    memory.stop()
    wait_until(lambda: "memory" not in {thread.name for thread in threading.enumerate()})
    memory.used(BLOCKS - 1)
    assert not taken_blocks(arrays[0])[64 + 1 :].any()


def test_taking_memory_ends_at_once_if_it_is_stopped(arrays: list[np.ndarray]) -> None:
    """An engine that is shut down does not wait for gigabytes that nobody needs any more."""
    ops.take_memory(arrays, 0, BLOCKS, np.ones(1, np.int32))
    assert not taken_blocks(arrays[0]).any()


def test_a_step_tells_which_block_it_has_come_to_and_when_it_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Any] = []
    monkeypatch.setattr(ahead.MemoryAhead, "used", lambda self, block: told.append(int(block)))
    for name in ("start", "rest", "stop"):
        monkeypatch.setattr(ahead.MemoryAhead, name, lambda self, name=name: told.append(name))
    driver = Driver(tmp_path, make_checkpoint(tmp_path, "LlamaForCausalLM").config)
    driver.step({0: range(20)})
    assert told == ["start", int(driver.tables[0][19 // driver.block_size]), "rest"]
    del driver
    gc.collect()
    assert told[3:] == ["stop"]


def test_what_is_written_meanwhile_stays() -> None:
    array = ops.cache_array(4096, 16, 3, 64, "bfloat16")
    stopped = np.zeros(1, np.int32)
    thread = threading.Thread(target=ops.take_memory, args=([array], 0, len(array), stopped))
    thread.start()
    for block in range(0, len(array), 7):
        array[block] = block % 251
    thread.join()
    expected = np.arange(len(array)) % 251 * (np.arange(len(array)) % 7 == 0)
    assert (array == expected[:, None, None, None]).all()
    ops.take_memory([array], 0, len(array), stopped)
    assert (array == expected[:, None, None, None]).all()
