"""Whether MindSpore runs a graph, and on what."""

from __future__ import annotations

from collections.abc import Iterator

from vllm_mindspore.cli.doctor.finding import Finding, note, ok, problem
from vllm_mindspore.cli.doctor.installing import install
from vllm_mindspore.cli.doctor.surroundings import Surroundings

NAME = "graph"
LOOKS_AT = "whether MindSpore compiles and runs a graph, and on which device"
FOLLOWS = ("interpreter", "rivals", "packages", "files", "variables", "memory", "disk", "limits", "imports")


def run(around: Surroundings) -> Iterator[Finding]:
    version = around.version("mindspore")
    if version is None:
        return  # `packages` says so
    answers = around.probes.ask("graph")
    if answers.parts.get("mindspore") != {}:
        yield note("Not looked at, as MindSpore cannot be imported")
        return
    found = answers.parts.get("graph", {"error": answers.error, "through": []})
    remedy = install(around, f"mindspore=={version}", flags=["--force-reinstall", "--no-deps"])
    if "error" in found:
        yield problem(f"MindSpore runs no graph: {found['error']}", remedy, {"mindspore", *found["through"]})
    elif found["answer"] != [3.0]:
        yield problem(f"MindSpore computes {found['answer']} where [3.0] is right", remedy, {"mindspore"})
    else:
        yield ok(f"MindSpore {version} runs a graph on the device {found['device']}")
