"""How many threads compute where nobody says it: more than the cores that there are wait for each other."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from vllm_mindspore.kernels.cpu import cores


@pytest.fixture
def cgroup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine of 8 cores and an empty cgroup folder."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.setattr(cores, "_CGROUP", tmp_path)
    return tmp_path


def test_without_cgroup_the_scheduler_counts(cgroup: Path) -> None:
    assert cores.usable_cores() == 8


@pytest.mark.parametrize(
    ("written", "usable"),
    [
        ("max 100000", 8),
        ("200000 100000", 2),
        ("150000 100000", 2),
        ("50000 100000", 1),
        ("1600000 100000", 8),
        ("", 8),
    ],
)
def test_a_quota_of_cgroup_v2_counts(cgroup: Path, written: str, usable: int) -> None:
    (cgroup / "cpu.max").write_text(f"{written}\n")
    assert cores.usable_cores() == usable


@pytest.mark.parametrize(("quota", "usable"), [("-1", 8), ("250000", 3), ("1600000", 8)])
def test_a_quota_of_cgroup_v1_counts(cgroup: Path, quota: str, usable: int) -> None:
    (cgroup / "cpu").mkdir()
    (cgroup / "cpu" / "cpu.cfs_quota_us").write_text(f"{quota}\n")
    (cgroup / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    assert cores.usable_cores() == usable


def test_real_machine_is_consistent() -> None:
    assert 0 < cores.usable_cores() <= (os.cpu_count() or 1)
