"""A graph for `device` to run in a process of its own; in a file, because MindSpore reads the source of what it compiles."""

from __future__ import annotations

import json

from vllm_mindspore.bootstrap import import_mindspore


def main() -> None:
    """Print the device and an answer as JSON."""
    mindspore = import_mindspore()
    mindspore.set_context(mode=mindspore.GRAPH_MODE)

    class Twice(mindspore.nn.Cell):
        def construct(self, x):  # type: ignore[no-untyped-def]
            return x + x

    answer = Twice()(mindspore.Tensor([1.5], mindspore.float32)).asnumpy().tolist()
    print(json.dumps({"device": mindspore.get_context("device_target"), "answer": answer}))
