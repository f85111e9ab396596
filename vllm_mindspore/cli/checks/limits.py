"""Limits of this process: open files, processes and locked or virtual memory."""

from __future__ import annotations

import resource
from collections.abc import Iterator

from vllm_mindspore.cli.doctor.finding import Finding, Remedy, note, ok, problem
from vllm_mindspore.cli.doctor.probing import PROBED
from vllm_mindspore.cli.doctor.surroundings import Surroundings

NAME = "limits"
LOOKS_AT = "how many files and how much memory the process may have"
FOLLOWS = ()

_FEW = 4096
"""Each request holds a connection open; vLLM itself opens some hundred files."""
_VERY_FEW = 512
_MANY = 65536
_WHERE = "in the shell that starts vLLM"
_BY_ROOT = "as root, before the shell that starts vLLM"


def run(around: Surroundings) -> Iterator[Finding]:
    files, most = (_limit(value) for value in resource.getrlimit(resource.RLIMIT_NOFILE))
    text = f"{files:g} open files are allowed"
    raise_it = (
        Remedy(f"ulimit -n {min(most, _MANY):.0f}", _WHERE)
        if most >= _FEW
        else Remedy(f"ulimit -n {_MANY}", f"{_BY_ROOT}; for a container: docker run --ulimit nofile={_MANY} ...")
    )
    if files < _VERY_FEW:
        yield problem(f"{text}, which vLLM itself needs", raise_it)
    elif files < _FEW:
        yield note(f"{text}: a server with many clients needs more", raise_it)
    else:
        yield ok(text)
    space, most = (_limit(value) for value in resource.getrlimit(resource.RLIMIT_AS))
    if space != float("inf"):
        text = f"{space / (1 << 30):.1f} GiB of address space are allowed: torch and MindSpore map more than they use"
        yield problem(text, Remedy("ulimit -v unlimited", _WHERE if most == float("inf") else _BY_ROOT), PROBED)


def _limit(value: int) -> float:
    return float("inf") if value == resource.RLIM_INFINITY else value
