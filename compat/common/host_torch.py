"""Torch's parallel operations in a worker process, forked or not."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.context import ForkProcess
from typing import Any, Callable, TypeVar

import torch

T = TypeVar("T")


class HostTorch:
    """Runs functions that use torch's threads.

    If the parent of a forked process has used torch's OpenMP threads, the first parallel operation of the child's main thread
    waits for them forever. A new thread gets OpenMP threads of its own; so in a forked process there is one for this work, and
    torch in the main thread keeps to itself.
    """

    def __init__(self) -> None:
        self._thread: ThreadPoolExecutor | None = None
        if isinstance(multiprocessing.current_process(), ForkProcess):
            num_threads = torch.get_num_threads()
            torch.set_num_threads(1)
            self._thread = ThreadPoolExecutor(1, "torch", initializer=torch.set_num_threads, initargs=(num_threads,))

    def run(self, function: Callable[..., T], *arguments: Any) -> T:
        """Call the function without gradients and return what it returns."""
        if self._thread is None:
            return _without_gradients(function, *arguments)
        return self._thread.submit(_without_gradients, function, *arguments).result()


def _without_gradients(function: Callable[..., T], *arguments: Any) -> T:
    with torch.inference_mode():
        return function(*arguments)
