"""Memory figures decide how many KV blocks there are: a wrong one is an OOM kill or a refused model."""

from __future__ import annotations

from pathlib import Path

import pytest

from vllm_mindspore.engine import memory

GIB = 1 << 30


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine of 16 GiB with 10 GiB available and an empty cgroup folder."""
    (tmp_path / "meminfo").write_text(
        f"MemTotal: {16 * GIB // 1024} kB\nMemFree: 1024 kB\nMemAvailable: {10 * GIB // 1024} kB\n"
    )
    monkeypatch.setattr(memory, "_MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(memory, "_CGROUP", tmp_path)
    return tmp_path


def test_without_cgroup_the_machine_counts(machine: Path) -> None:
    assert memory.total_memory() == 16 * GIB
    assert memory.available_memory() == 10 * GIB


def test_unlimited_cgroup_the_machine_counts(machine: Path) -> None:
    (machine / "memory.max").write_text("max\n")
    (machine / "memory.current").write_text("123\n")
    assert memory.total_memory() == 16 * GIB
    assert memory.available_memory() == 10 * GIB


@pytest.mark.parametrize(
    ("limit", "usage"),
    [("memory.max", "memory.current"), ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes")],
    ids=["cgroup-v2", "cgroup-v1"],
)
def test_container_limit_counts(machine: Path, limit: str, usage: str) -> None:
    for name, value in ((limit, 4 * GIB), (usage, GIB)):
        (machine / name).parent.mkdir(exist_ok=True)
        (machine / name).write_text(f"{value}\n")
    assert memory.total_memory() == 4 * GIB
    assert memory.available_memory() == 3 * GIB


def test_real_machine_is_consistent() -> None:
    assert 0 < memory.available_memory() <= memory.total_memory()
