"""Installations that were interrupted."""

from __future__ import annotations

from typing import Any

from vllm_mindspore.cli.checks import files


def test_complete_packages_are_fine(machine: Any) -> None:
    machine.install("vllm", "0.9.1", files={"vllm/__init__.py": "", "vllm/config.py": "x = 1\n"})
    assert machine.is_fine(files) == "1 packages are complete"


def test_a_file_that_is_missing_or_cut_off_is_named(machine: Any) -> None:
    machine.install(
        "vllm", "0.9.1", files={"vllm/__init__.py": "", "vllm/config.py": "x = 1\n", "vllm/engine.py": "y = 2\n"}
    )
    machine.install("pip", "25.0")
    (machine.site / "vllm" / "config.py").unlink()
    (machine.site / "vllm" / "engine.py").write_text("y")
    (found,) = machine.problems(files)
    assert found.text == "vllm 0.9.1 is not complete: vllm/config.py is missing and 1 more"
    assert found.remedy.command == "/env/bin/python -m pip install --force-reinstall --no-deps vllm==0.9.1"
    machine.write("site/vllm/config.py", "x = 1\n")
    (found,) = machine.problems(files)
    assert found.text == "vllm 0.9.1 is not complete: vllm/engine.py has 1 bytes of 6"


def test_a_file_that_somebody_changed_is_noted(machine: Any) -> None:
    machine.install("vllm", "0.9.1", files={"vllm/config.py": "x = 1\n"})
    machine.write("site/vllm/config.py", "x = 1\nprint(x)\n")
    (found,) = machine.look(files)
    assert found.status == "note"
    assert found.text == "vllm 0.9.1 was changed after it was installed: vllm/config.py has 15 bytes and had 6"
