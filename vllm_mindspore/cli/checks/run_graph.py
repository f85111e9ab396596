"""A graph for `device` to run in a process of its own; in a file, because MindSpore reads the source of what it compiles."""

from __future__ import annotations

import json
from typing import Any

from vllm_mindspore.bootstrap import import_mindspore


def main() -> None:
    """Print the device and an answer as JSON."""
    ms: Any = import_mindspore()
    ms.set_context(mode=ms.GRAPH_MODE)

    class Twice(ms.nn.Cell):
        def construct(self, x):  # type: ignore[no-untyped-def]
            return x + x

    answer = Twice()(ms.Tensor([1.5], ms.float32)).asnumpy().tolist()
    print(json.dumps({"device": ms.get_context("device_target"), "answer": answer}))
