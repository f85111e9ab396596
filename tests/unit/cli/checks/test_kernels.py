"""Whether the kernels compute."""

from __future__ import annotations

from typing import Any

from vllm_mindspore.cli.checks import kernels


def test_a_right_answer_is_fine(machine: Any) -> None:
    machine.answer("kernels", {"kernels": {"isa": "avx2", "isas": ["avx2", "portable"], "threads": 2}})
    assert machine.is_fine(kernels) == "CPU kernels: avx2 (portable would run, too), 2 threads, a right answer"


def test_kernels_that_are_not_built_are_named(machine: Any) -> None:
    machine.install("pip", "25.0")
    error = {
        "error": "KernelError: The CPU kernels are not built: x.so is missing.",
        "at": "",
        "through": ["vllm_mindspore"],
    }
    machine.answer("kernels", {"kernels": error})
    (found,) = machine.problems(kernels)
    assert found.text == "The CPU kernels are not built: x.so is missing."
    assert found.remedy.command == "/env/bin/python -m pip install --force-reinstall --no-deps PATH"
    assert found.remedy.by_hand == "with the checkout or wheel that you installed from in place of PATH"


def test_kernels_that_crash_are_named(machine: Any) -> None:
    machine.answer("kernels", error="killed by signal 4")
    (found,) = machine.problems(kernels)
    assert found.text == "The CPU kernels end Python: killed by signal 4"
