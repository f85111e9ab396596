"""Python itself, and the processor that it was built for."""

from __future__ import annotations

import platform
import struct
import sys
from collections.abc import Iterator

from packaging.specifiers import SpecifierSet

from vllm_mindspore.cli.doctor.finding import Finding, Remedy, note, ok, problem
from vllm_mindspore.cli.doctor.installing import NO_WHEEL, install_row, new_environment
from vllm_mindspore.cli.doctor.surroundings import Surroundings

NAME = "interpreter"
LOOKS_AT = "the version of Python, the processor and the C library"
FOLLOWS = ()

_ABOUT = ("vllm", "mindspore", "torch", "vllm-mindspore")
_MACHINES = ("x86_64", "aarch64")


def run(around: Surroundings) -> Iterator[Finding]:
    row, python = around.row, platform.python_version()
    new = new_environment(around)
    if not SpecifierSet(row.python).contains(python, prereleases=True):
        yield problem(f"Python {python}, vLLM {row.vllm} needs {row.python}", new, _ABOUT)
    if sys.implementation.name != "cpython":
        yield problem(f"{platform.python_implementation()}: MindSpore and torch are built for CPython", new, _ABOUT)
    if struct.calcsize("P") != 8 or sys.platform != "linux" or around.machine not in _MACHINES:
        yield problem(
            f"{sys.platform} on {around.machine}, {struct.calcsize('P') * 8} bits: MindSpore and vLLM are there for "
            f"64 bits of Linux on {' and '.join(_MACHINES)}",
            Remedy("uname -a", "look for a machine of one of these kinds"),
            _ABOUT,
        )
    where = "a virtual environment" if sys.prefix != sys.base_prefix else "no virtual environment"
    yield ok(f"Python {python} on {around.machine}, {' '.join(platform.libc_ver())}, in {where} ({sys.prefix})")
    if around.machine == "aarch64":
        yield note(
            f"vLLM {row.vllm} has no wheel for aarch64: its source distribution needs {NO_WHEEL} and torch{row.torch} "
            "beside it, of which PyPI's CPU build is right",
            install_row(around),
        )
