"""Whether there is memory to speak of, within the container's limit."""

from __future__ import annotations

from collections.abc import Iterator

from vllm_mindspore.cli.doctor.finding import Finding, Remedy, note, ok, problem
from vllm_mindspore.cli.doctor.probing import PROBED
from vllm_mindspore.cli.doctor.surroundings import Surroundings
from vllm_mindspore.engine.memory import available_memory, total_memory

NAME = "memory"
LOOKS_AT = "memory that is there and free, and VLLM_CPU_KVCACHE_SPACE"
FOLLOWS = ()

GIB = 1 << 30
_LITTLE = 4 * GIB
"""vLLM's processes take about 2 GiB before there is a model."""
_TOO_LITTLE = GIB
"""With which importing vLLM is about all that can be done."""


def run(around: Surroundings) -> Iterator[Finding]:
    total, available = total_memory(), available_memory()
    text = f"{available / GIB:.1f} GiB of {total / GIB:.1f} GiB are free"
    space = around.environ.get("VLLM_CPU_KVCACHE_SPACE", "")
    if space.isdecimal() and int(space) * GIB > available:
        remedy = Remedy("unset VLLM_CPU_KVCACHE_SPACE", "in the shell that starts vLLM")
        yield problem(f"{text}, and VLLM_CPU_KVCACHE_SPACE={space} asks for {space} GiB", remedy)
    elif available < _TOO_LITTLE:
        remedy = Remedy("free -m", "and free memory, or raise the container's limit")
        yield problem(f"{text}: vLLM itself takes about 2 GiB", remedy, PROBED)
    elif available < _LITTLE:
        yield note(f"{text}: vLLM itself takes about 2 GiB")
    else:
        yield ok(text)
