"""What a step may cost, counted in what noise cannot move: budget.toml, and how it is counted."""

from __future__ import annotations

import gc
import sys
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

BUDGET = tomllib.loads((Path(__file__).parent / "budget.toml").read_text(encoding="utf-8"))


@dataclass
class Cost:
    """Of Python code that ran."""

    instructions: int = 0
    """Of Python's bytecode: every turn of every loop adds some, that of a comprehension as well."""
    calls: int = 0
    """Of functions in Python and in C."""


@contextmanager
def counted() -> Iterator[Cost]:
    """Count in every function that is called inside."""
    cost = Cost()

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        cost.instructions += event == "opcode"
        return trace

    def profile(frame: FrameType, event: str, argument: Any) -> None:
        cost.calls += event in ("call", "c_call")

    before = sys.gettrace(), sys.getprofile()
    gc.disable()  # what it calls is not the step's
    sys.setprofile(profile)
    sys.settrace(trace)
    try:
        yield cost
    finally:
        sys.settrace(before[0])
        sys.setprofile(before[1])
        gc.enable()


@dataclass
class Allocated:
    """Bytes that Python and numpy held at once more than before."""

    peak: int = 0


@contextmanager
def allocations() -> Iterator[Allocated]:
    """Count what is allocated inside, given back or not."""
    allocated = Allocated()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        yield allocated
        allocated.peak = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
