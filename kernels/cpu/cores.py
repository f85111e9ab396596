"""How many cores this process may use, within the container's quota."""

from __future__ import annotations

import os
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")


def usable_cores() -> int:
    """Cores that the scheduler gives to this process, or as many as its cgroup's share of time fills if those are fewer."""
    allowed = len(os.sched_getaffinity(0))
    quota, period = _quota()
    return min(allowed, -(-quota // period)) if quota > 0 and period > 0 else allowed


def _quota() -> tuple[int, int]:
    """Microseconds of computing in each period of so many, by cgroup v2, then v1; zeros if there is no limit."""
    written = _read("cpu.max") or f"{_read('cpu/cpu.cfs_quota_us')} {_read('cpu/cpu.cfs_period_us')}"
    numbers = written.split()
    if len(numbers) != 2 or not all(number.isdigit() for number in numbers):
        return 0, 0  # "max", -1, or no such file
    return int(numbers[0]), int(numbers[1])


def _read(name: str) -> str:
    try:
        return (_CGROUP / name).read_text().strip()
    except OSError:
        return ""
