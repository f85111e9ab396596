"""The machine: what it is, its two limits, and how busy it is with other work."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from pathlib import Path

ISA = "our kernels use"
"""Of a machine's description; docs/performance.md has a block for each."""
HERE = Path(__file__).parent
CORES = sorted(os.sched_getaffinity(0))


def description(isa: str) -> dict[str, str]:
    """For the docs."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    facts = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    return {
        "CPU": facts.get("model name", platform.machine()),
        "family, model": f"{facts.get('cpu family', '?')}, {facts.get('model', '?')}",
        "cores": str(len(CORES)),
        ISA: isa,
        "Linux": platform.release(),
    }


class Limits:
    """The limits for all cores that this process may use, from a small program that is compiled here."""

    def __init__(self, folder: Path) -> None:
        self._program = folder / "limits"
        compiler = os.environ.get("CXX", "g++")
        options = ["-O3", "-march=native", "-std=c++17", "-pthread", "-w"]
        subprocess.run([compiler, *options, HERE / "limits.cc", "-o", self._program], check=True)

    def measure(self, threads: int) -> tuple[float, float]:
        """Bytes per second of reads from memory, and floating point operations per second."""
        gigabytes, gigaflops, *_ = subprocess.check_output([self._program, str(threads)], text=True).split()
        return float(gigabytes) * 1e9, float(gigaflops) * 1e9

    def operation(self) -> str:
        """What is counted as floating point operations."""
        return subprocess.check_output([self._program, "1"], text=True).split(maxsplit=2)[2].strip()


def busy(seconds: float = 0.5) -> float:
    """The part of the cores that is at work, while we wait; first for a second, as a side may still be at work after its answer."""

    def ticks() -> tuple[int, int]:
        user, nice, system, idle, iowait, *rest = map(int, Path("/proc/stat").read_text().splitlines()[0].split()[1:])
        return idle + iowait, user + nice + system + idle + iowait + sum(rest[:3])

    time.sleep(1)
    idle, total = ticks()
    time.sleep(seconds)
    idle_then, total_then = ticks()
    return 1 - (idle_then - idle) / max(1, total_then - total)
