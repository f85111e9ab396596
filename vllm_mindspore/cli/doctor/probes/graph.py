"""Whether MindSpore can be imported and runs a graph; in a file, because MindSpore reads the source of what it compiles."""

from __future__ import annotations

from typing import Any

from vllm_mindspore.bootstrap import import_mindspore
from vllm_mindspore.cli.doctor.probes import Tell, failure


def look(tell: Tell) -> None:
    """Tell of `mindspore` and of a `graph`: its device and its answer, [3.0] if it is right."""
    try:
        ms: Any = import_mindspore()
    except BaseException as error:
        tell("mindspore", failure(error))
        return
    tell("mindspore", {})
    try:
        tell("graph", _run(ms))
    except BaseException as error:
        tell("graph", failure(error))


def _run(ms: Any) -> dict[str, Any]:
    ms.set_context(mode=ms.GRAPH_MODE)

    class Twice(ms.nn.Cell):
        def construct(self, x):  # type: ignore[no-untyped-def]
            return x + x

    answer = Twice()(ms.Tensor([1.5], ms.float32)).asnumpy().tolist()
    return {"device": ms.get_context("device_target"), "answer": answer}
