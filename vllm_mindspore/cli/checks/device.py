"""Whether MindSpore runs a graph, and on what."""

from __future__ import annotations

from vllm_mindspore.cli.checks.finding import Finding, probe
from vllm_mindspore.matrix import rows

_CODE = "from vllm_mindspore.cli.checks import run_graph; run_graph.main()"


def run() -> list[Finding]:
    found = probe(_CODE)
    mindspore = f"mindspore{rows()[-1].requirements['mindspore']}"
    if found.result is None:
        return [
            Finding(
                "problem", f"MindSpore runs no graph: {found.error}", f"pip install --force-reinstall '{mindspore}'"
            )
        ]
    if found.result["answer"] != [3.0]:
        return [
            Finding(
                "problem",
                f"MindSpore computes {found.result['answer']} where [3.0] is right",
                f"pip install --force-reinstall '{mindspore}'",
            )
        ]
    return [
        Finding("ok", f"MindSpore runs a graph on the device {found.result['device']}"),
        Finding("note", "Models run on the CPU; there is no Ascend backend yet"),
    ]
