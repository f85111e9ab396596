"""How many threads compute where nobody says it: more than the cores that there are wait for each other."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from vllm_mindspore.kernels.cpu import cgroup, cores


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine of 8 cores and an empty folder of control groups, in which a process is in the outermost."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.setattr(cgroup, "_MOUNTED", tmp_path)
    monkeypatch.setattr(cgroup, "_OWN", tmp_path / "own")
    return tmp_path


def test_without_cgroup_the_scheduler_counts(groups: Path) -> None:
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
def test_a_quota_of_cgroup_v2_counts(groups: Path, written: str, usable: int) -> None:
    (groups / "cpu.max").write_text(f"{written}\n")
    assert cores.usable_cores() == usable


@pytest.mark.parametrize(("quota", "usable"), [("-1", 8), ("250000", 3), ("1600000", 8)])
def test_a_quota_of_cgroup_v1_counts(groups: Path, quota: str, usable: int) -> None:
    (groups / "cpu").mkdir()
    (groups / "cpu" / "cpu.cfs_quota_us").write_text(f"{quota}\n")
    (groups / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    assert cores.usable_cores() == usable


def test_the_least_quota_of_the_own_group_and_of_those_around_it_counts(groups: Path) -> None:
    (groups / "own").write_text("0::/user.slice/job/step\n")
    (groups / "user.slice" / "job" / "step").mkdir(parents=True)
    for group, written in (("user.slice", "max"), ("user.slice/job", "300000"), ("user.slice/job/step", "600000")):
        (groups / group / "cpu.max").write_text(f"{written} 100000\n")
    assert cores.usable_cores() == 3


def test_a_quota_of_a_group_of_cgroup_v1_counts(groups: Path) -> None:
    (groups / "own").write_text("5:cpu,cpuacct:/slurm/job\n4:memory:/other\n0::/other\n")
    (groups / "cpu" / "slurm" / "job").mkdir(parents=True)
    for folder, quota in ((groups / "cpu", -1), (groups / "cpu" / "slurm" / "job", 150000)):
        (folder / "cpu.cfs_quota_us").write_text(f"{quota}\n")
        (folder / "cpu.cfs_period_us").write_text("100000\n")
    assert cores.usable_cores() == 2


def test_real_machine_is_consistent() -> None:
    assert 0 < cores.usable_cores() <= (os.cpu_count() or 1)
