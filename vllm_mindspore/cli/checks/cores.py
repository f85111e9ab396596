"""How many cores this process may use, and how many threads it is told to use."""

from __future__ import annotations

import os
from collections.abc import Iterator

from vllm_mindspore.cli.doctor.finding import Finding, Remedy, note, ok
from vllm_mindspore.cli.doctor.surroundings import Surroundings
from vllm_mindspore.kernels.cpu.cores import usable_cores

NAME = "cores"
LOOKS_AT = "cores that the process may use, and OMP_NUM_THREADS"
FOLLOWS = ()


def run(around: Surroundings) -> Iterator[Finding]:
    allowed, there = usable_cores(), os.cpu_count() or 1
    text = f"{allowed} of {there} cores may be used"
    threads = around.environ.get("OMP_NUM_THREADS", "")
    if threads.isdecimal() and int(threads) > allowed:
        remedy = Remedy(f"export OMP_NUM_THREADS={allowed}", "in the shell that starts vLLM")
        yield note(
            f"{text}, and OMP_NUM_THREADS={threads} asks for more threads, which then wait for each other", remedy
        )
    elif allowed < 2:
        yield note(f"{text}: vLLM's front end and the model will share it")
    else:
        yield ok(text)
