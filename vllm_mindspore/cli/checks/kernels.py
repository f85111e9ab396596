"""Whether the kernels are built, load, and compute a right answer on the instruction set of this machine."""

from __future__ import annotations

from collections.abc import Iterator

from vllm_mindspore.cli.doctor.finding import Finding, ok, problem
from vllm_mindspore.cli.doctor.installing import OURSELVES, reinstall_ourselves
from vllm_mindspore.cli.doctor.surroundings import Surroundings

NAME = "kernels"
LOOKS_AT = "whether the CPU kernels are built, load and compute a right answer"
FOLLOWS = ("interpreter", "packages", "files", "memory", "disk", "limits", "imports")


def run(around: Surroundings) -> Iterator[Finding]:
    answers = around.probes.ask("kernels")
    found = answers.parts.get("kernels")
    if found is None:
        about = {OURSELVES, "numpy"}
        yield problem(f"The CPU kernels end Python: {answers.error}", reinstall_ourselves(around), about)
    elif "error" in found:
        about = {OURSELVES, *found["through"]} - {"vllm_mindspore"}
        # Our own errors are whole sentences already.
        yield problem(
            found["error"].partition("KernelError: ")[2] or found["error"], reinstall_ourselves(around), about
        )
    else:
        others = [isa for isa in found["isas"] if isa != found["isa"]]
        also = f" ({', '.join(others)} would run, too)" if others else ""
        yield ok(f"CPU kernels: {found['isa']}{also}, {found['threads']} threads, a right answer")
