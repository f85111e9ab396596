"""Whether the kernels are built, load, and compute a right answer on the instruction set of this machine."""

from __future__ import annotations

from vllm_mindspore.cli.checks.finding import Finding, probe

_CODE = """
import json
from vllm_mindspore.kernels.cpu import library
from vllm_mindspore.kernels.errors import KernelError
try:
    answer = {"isa": library.self_check(), "threads": library.num_threads()}
except KernelError as error:
    answer = {"error": str(error)}
print(json.dumps(answer))
"""
_REMEDY = "pip install --force-reinstall --no-deps vllm-mindspore"


def run() -> list[Finding]:
    found = probe(_CODE)
    if found.result is None:
        return [Finding("problem", f"The CPU kernels crash: {found.error}", _REMEDY)]
    if "error" in found.result:
        return [Finding("problem", found.result["error"], _REMEDY)]
    return [Finding("ok", "CPU kernels: {isa}, {threads} threads, a right answer".format(**found.result))]
