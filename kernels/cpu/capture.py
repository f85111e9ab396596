"""Launch capture: a static graph's operators, run again without MindSpore's runtime.

MindSpore spends some 15 us on each operator of a graph: as long as the operator itself takes when a batch is small. What it does
is the same at every step, as shapes and memory are: so the launches of one run are kept (`csrc/capture.cc`) and made again.
"""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np
from mindspore import Tensor, nn

from vllm_mindspore.kernels.cpu import library
from vllm_mindspore.kernels.errors import KernelError, NotCaptured


class LaunchCapture:
    """The launches of a graph that consists of operators of `kernels.ops` and of nothing else.

    Args:
        network: a Cell; it is run once, on `inputs`.
        inputs: tensors that share memory with arrays of the caller, who writes there before each launch.

    Raises:
        NotCaptured: a result of the graph is not an output of one of our operators.
    """

    def __init__(self, network: nn.Cell, inputs: Sequence[Tensor]) -> None:
        kernels = library.load()
        network(*inputs)[0].asnumpy()  # compiled, if it was not
        kernels.vms_capture_begin()
        try:
            results = [result.asnumpy() for result in network(*inputs)]
        except BaseException:
            kernels.vms_capture_free(kernels.vms_capture_end(None, 0))  # or all later launches would be kept
            raise
        handle = kernels.vms_capture_end(
            (ctypes.c_void_p * len(results))(*(result.ctypes.data for result in results)), len(results)
        )
        if not handle:
            raise NotCaptured("a result of the graph is not an output of our operators")
        self._memory = _Memory(handle, kernels.vms_capture_free)
        self._launch = kernels.vms_capture_launch
        self.results: tuple[np.ndarray[Any, Any], ...] = tuple(
            _array_at(kernels.vms_capture_result(handle, i), result, self._memory) for i, result in enumerate(results)
        )
        """The graph's outputs, overwritten by each launch. They keep the capture's memory."""

    def launch(self) -> None:
        """Run the operators on what the inputs hold now.

        Raises:
            KernelError: an operator refused.
        """
        if self._launch(self._memory.handle):
            raise KernelError("an operator of the captured graph refused its inputs: please report this")


class _Memory:
    """A capture of the library, freed when nobody has it or a result of it any more."""

    def __init__(self, handle: int, free: Any) -> None:
        self.handle = handle
        weakref.finalize(self, free, handle)


def _array_at(address: int, like: np.ndarray[Any, Any], owner: _Memory) -> np.ndarray[Any, Any]:
    memory = (ctypes.c_uint8 * like.nbytes).from_address(address)
    memory.owner = owner  # type: ignore[attr-defined]
    return np.ctypeslib.as_array(memory).view(like.dtype).reshape(like.shape)
