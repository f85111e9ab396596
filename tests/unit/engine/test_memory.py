"""Memory figures decide how many KV blocks there are: a wrong one is an OOM kill or a refused model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from vllm_mindspore.engine import memory
from vllm_mindspore.kernels.cpu import cgroup

GIB = 1 << 30


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine of 16 GiB with 10 GiB available and an empty folder of control groups, in which a process is in the outermost."""
    (tmp_path / "meminfo").write_text(
        f"MemTotal: {16 * GIB // 1024} kB\nMemFree: 1024 kB\nMemAvailable: {10 * GIB // 1024} kB\n"
    )
    monkeypatch.setattr(memory, "_MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(cgroup, "_MOUNTED", tmp_path)
    monkeypatch.setattr(cgroup, "_OWN", tmp_path / "own")
    return tmp_path


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"{text}\n")


def group_v2(folder: Path, limit: object, usage: int, inactive: int = 0) -> None:
    stat = f"anon 12\nfile {2 * inactive}\ninactive_file {inactive}\nactive_file {inactive}"
    write(folder, {"memory.max": f"{limit}", "memory.current": f"{usage}", "memory.stat": stat})


def group_v1(folder: Path, limit: int, usage: int, inactive: int = 0) -> None:
    stat = f"inactive_file 0\nhierarchical_memory_limit {limit}\ntotal_inactive_file {inactive}"
    files = {"memory.limit_in_bytes": f"{limit}", "memory.usage_in_bytes": f"{usage}", "memory.stat": stat}
    write(folder, files)


UNLIMITED_V1 = 9223372036854771712


def test_without_cgroup_the_machine_counts(machine: Path) -> None:
    assert memory.total_memory() == 16 * GIB
    assert memory.available_memory() == 10 * GIB


def test_unlimited_cgroup_the_machine_counts(machine: Path) -> None:
    (machine / "memory.max").write_text("max\n")
    (machine / "memory.current").write_text("123\n")
    assert memory.total_memory() == 16 * GIB
    assert memory.available_memory() == 10 * GIB


@pytest.mark.parametrize(
    "write_files",
    [
        lambda top: write(top, {"memory.max": f"{4 * GIB}", "memory.current": f"{GIB}"}),
        lambda top: group_v2(top, 4 * GIB, GIB),
        lambda top: group_v1(top / "memory", 4 * GIB, GIB),
        lambda top: group_v1(top / "memory", 4 * GIB, 3 * GIB, inactive=2 * GIB),
        lambda top: group_v2(top, 4 * GIB, 3 * GIB, inactive=2 * GIB),
    ],
    ids=["without statistics", "v2", "v1", "v1, weights just read", "v2, weights just read"],
)
def test_container_limit_counts(machine: Path, write_files: Callable[[Path], None]) -> None:
    """What a container holds of files it has read can be had again, as Kubernetes' working set says."""
    write_files(machine)
    assert memory.total_memory() == 4 * GIB
    assert memory.available_memory() == 3 * GIB


def slurm_v1(top: Path) -> None:
    write(top, {"own": "5:cpu,cpuacct:/\n4:memory:/slurm/uid_7/job_3/step_0\n1:name=systemd:/slurm"})
    group_v1(top / "memory", UNLIMITED_V1, 12 * GIB)
    group_v1(top / "memory/slurm", UNLIMITED_V1, 6 * GIB)
    group_v1(top / "memory/slurm/uid_7/job_3", 4 * GIB, GIB)
    group_v1(top / "memory/slurm/uid_7/job_3/step_0", UNLIMITED_V1, GIB)


def systemd_run_v2(top: Path) -> None:
    write(top, {"own": "0::/system.slice/run-7.service"})
    group_v2(top / "system.slice", "max", 5 * GIB)
    group_v2(top / "system.slice/run-7.service", 4 * GIB, GIB)


def systemd_run_hybrid(top: Path) -> None:
    write(top, {"own": "4:memory:/system.slice/run-7.service\n0::/system.slice/run-7.service"})
    group_v1(top / "memory/system.slice/run-7.service", 4 * GIB, GIB)
    write(top / "unified/system.slice/run-7.service", {"cgroup.procs": "7"})


def unified_beside_v1(top: Path) -> None:
    write(top, {"own": "4:cpu:/\n0::/job"})
    group_v2(top / "unified/job", 4 * GIB, GIB)


def lowest_is_not_the_fullest(top: Path) -> None:
    write(top, {"own": "0::/pod/container"})
    group_v2(top / "pod", 6 * GIB, 3 * GIB)  # a neighbour's
    group_v2(top / "pod/container", 4 * GIB, 0)


def a_mount_of_the_own_group(top: Path) -> None:
    """As Docker mounts v1 for a container without a namespace of its own: the group's name is the host's."""
    write(top, {"own": "4:memory:/docker/c0ffee"})
    group_v1(top / "memory", 4 * GIB, GIB)


@pytest.mark.parametrize(
    "tree",
    [slurm_v1, systemd_run_v2, systemd_run_hybrid, unified_beside_v1, lowest_is_not_the_fullest, a_mount_of_the_own_group],
    ids=lambda tree: tree.__name__,
)  # fmt: skip
def test_limits_of_the_own_group_and_of_those_around_it_count(machine: Path, tree: Callable[[Path], None]) -> None:
    tree(machine)
    assert memory.total_memory() == 4 * GIB
    assert memory.available_memory() == 3 * GIB


def test_limits_of_other_groups_do_not_count(machine: Path) -> None:
    write(machine, {"own": "0::/mine"})
    group_v2(machine / "mine", "max", GIB)
    group_v2(machine / "theirs", GIB, GIB)
    assert memory.total_memory() == 16 * GIB
    assert memory.available_memory() == 10 * GIB


def test_real_machine_is_consistent() -> None:
    assert 0 < memory.available_memory() <= memory.total_memory()
