"""Shared memory, through which vLLM's processes talk; containers get 64 MiB unless told otherwise."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

from vllm_mindspore.cli.doctor.finding import Finding, Remedy, note, ok, problem
from vllm_mindspore.cli.doctor.surroundings import Surroundings

NAME = "shared-memory"
LOOKS_AT = "/dev/shm, through which vLLM's processes talk"
FOLLOWS = ()

_MIB = 1 << 20
_LITTLE = 256 * _MIB


def run(around: Surroundings) -> Iterator[Finding]:
    folder = around.root / "dev" / "shm"
    bigger = Remedy(
        "docker run --shm-size 2g ...",
        "where the container is started; without one: mount -o remount,size=2g /dev/shm, as root",
    )
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        yield problem("/dev/shm is not there or not writable", bigger)
        return
    usage = shutil.disk_usage(folder)
    text = f"/dev/shm has {usage.free / _MIB:.0f} MiB free of {usage.total / _MIB:.0f}"
    yield note(f"{text}: little for several workers", bigger) if usage.free < _LITTLE else ok(text)
