"""Environments without bytecode, and whether Python will make it by itself."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from typing import Any

import pytest

from vllm_mindspore.cli.checks import bytecode


@pytest.fixture
def bare(machine: Any) -> Any:
    """A machine with packages that were not compiled."""
    for name in ("vllm", "mindspore"):
        machine.write(f"site/{name}/__init__.py")
    return machine


def test_where_nothing_is_installed_there_is_nothing_to_say(machine: Any) -> None:
    assert machine.look(bytecode) == []


def test_python_keeps_what_the_first_start_compiles(bare: Any) -> None:
    assert bare.is_fine(bytecode) == "The first start compiles vllm, mindspore, and takes longer than those after it"


def test_where_python_may_keep_nothing_the_command_that_mends_it_does(bare: Any) -> None:
    bare.environ = {"PYTHONDONTWRITEBYTECODE": "1"}
    (found,) = bare.look(bytecode)
    assert found.status == "note"
    assert found.text == (
        "Every start compiles vllm, mindspore anew and takes twice as long, as there is no bytecode and "
        "PYTHONDONTWRITEBYTECODE is set"
    )
    python, *command = shlex.split(found.remedy.command)
    assert (python, found.remedy.by_hand) == ("/env/bin/python", "")
    subprocess.run([sys.executable, *command], check=True, env={**os.environ, **bare.environ})
    assert bare.is_fine(bytecode) == "Python keeps that of vllm, mindspore"


def test_an_environment_that_belongs_to_somebody_else(bare: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bytecode, "is_writable", lambda _: False)
    (found,) = bare.look(bytecode)
    assert found.text.endswith(f"no bytecode and {bare.site / 'vllm'} may not be written by this user")
    assert found.remedy.by_hand == "as the owner of the environment"
