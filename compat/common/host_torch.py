"""Torch in a worker, on the thread that calls it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def torch_on_one_thread() -> Iterator[None]:
    """Torch's operations in here start no threads and keep no gradients.

    What a step leaves to torch is small, and after each operation its threads spin for a while, on the cores that the kernels' threads need next.
    """
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            yield
    finally:
        torch.set_num_threads(num_threads)
