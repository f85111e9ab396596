"""How many cores this process may use, within the quotas of its control groups."""

from __future__ import annotations

import os
from pathlib import Path

from vllm_mindspore.kernels.cpu import cgroup


def usable_cores() -> int:
    """Cores that the scheduler gives to this process, or as many as the least of its groups' shares of time fills if those are fewer."""
    quotas = (_quota(folder) for folder in cgroup.folders("cpu"))
    return min([len(os.sched_getaffinity(0)), *(-(-quota // period) for quota, period in quotas if quota and period)])


def _quota(folder: Path) -> tuple[int, int]:
    """Microseconds of computing in each period of so many, by cgroup v2, then v1; zeros if there is no limit."""
    in_v1 = (cgroup.read(folder / f"cpu.cfs_{name}_us") for name in ("quota", "period"))
    numbers = (cgroup.read(folder / "cpu.max") or " ".join(in_v1)).split()
    if len(numbers) != 2 or not all(number.isdigit() for number in numbers):
        return 0, 0  # "max", -1, or no such file
    return int(numbers[0]), int(numbers[1])
