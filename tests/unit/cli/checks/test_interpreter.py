"""Python and the processor."""

from __future__ import annotations

import platform
from typing import Any

import pytest

from vllm_mindspore.cli.checks import interpreter


def test_the_python_that_runs_this_is_fine(machine: Any) -> None:
    assert f"Python {platform.python_version()} on x86_64" in machine.is_fine(interpreter)


def test_a_python_out_of_the_rows_range_is_named(machine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "python_version", lambda: "3.12.1")
    (found,) = machine.problems(interpreter)
    assert found.text == "Python 3.12.1, vLLM 0.9.1 needs >=3.9,<3.12"
    assert found.remedy.command.startswith("python3.11 -m venv .venv && .venv/bin/python -m pip install ")
    machine.write("bin/uv").chmod(0o755)
    machine.environ = {"PATH": str(machine.root / "bin")}
    (found,) = machine.problems(interpreter)
    assert found.remedy.command.startswith("uv venv --python 3.11 .venv && uv pip install --python .venv/bin/python ")


def test_a_machine_that_nothing_is_built_for_is_named(machine: Any) -> None:
    machine.machine = "riscv64"
    (found,) = machine.problems(interpreter)
    assert "linux on riscv64" in found.text


def test_another_python_than_cpython_is_named(machine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interpreter.sys.implementation, "name", "pypy")
    monkeypatch.setattr(platform, "python_implementation", lambda: "PyPy")
    (found,) = machine.problems(interpreter)
    assert found.text == "PyPy: MindSpore and torch are built for CPython"


@pytest.mark.parametrize(("extra", "torch"), [("vllm066", "2.5.1"), ("vllm083", "2.6.0"), ("vllm091", "2.7.0")])
def test_aarch64_is_told_how_vllm_is_built_there(machine: Any, extra: str, torch: str) -> None:
    machine.machine = "aarch64"
    machine.install("pip", "25.0")
    (_, found) = machine.look(interpreter, extra)
    assert f"VLLM_TARGET_DEVICE=empty and torch=={torch}" in found.text
    assert found.remedy.command == f"VLLM_TARGET_DEVICE=empty /env/bin/python -m pip install 'PATH[{extra}]'"
