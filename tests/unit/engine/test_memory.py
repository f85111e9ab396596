"""Memory figures decide how many KV blocks there are: a wrong one is an OOM kill or a refused model."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from tests.checkpoints import make_checkpoint
from tests.unit.models.driver import Driver
from vllm_mindspore.engine import memory
from vllm_mindspore.engine.step import StepBatch
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


@pytest.mark.parametrize(
    "write_files",
    [
        lambda top: write(top, {"memory.max": "max", "memory.current": "123"}),
        lambda top: group_v1(top / "memory", UNLIMITED_V1, 4096),
    ],
    ids=["v2", "v1, which says so with a number"],
)
def test_unlimited_cgroup_the_machine_counts(machine: Path, write_files: Callable[[Path], None]) -> None:
    write_files(machine)
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


def test_a_container_over_its_limit_has_nothing_left(machine: Path) -> None:
    group_v2(machine, GIB, GIB + 4096)
    assert memory.available_memory() == 0


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


@pytest.mark.parametrize(
    ("architecture", "options"),
    [
        ("LlamaForCausalLM", {"intermediate_size": 256, "head_dim": 256, "num_attention_heads": 8}),
        ("Qwen3MoeForCausalLM", {"moe_intermediate_size": 512, "intermediate_size": 64}),
        ("DeepseekV3ForCausalLM", {"kv_lora_rank": 256, "num_attention_heads": 16, "num_key_value_heads": 16, "intermediate_size": 64}),
    ],
    ids=["wide heads", "experts", "latents"],
)  # fmt: skip
def test_a_step_takes_no_more_memory_than_is_set_aside_for_it(
    tmp_path: Path, architecture: str, options: dict[str, Any]
) -> None:
    """The KV cache has all the rest: an engine would start, and be killed in its first long prompt."""
    tokens = 2048
    size = {"hidden_size": 512, "num_hidden_layers": 2, "max_position_embeddings": tokens}
    config = make_checkpoint(tmp_path, architecture, **size, **options).config
    driver = Driver(tmp_path, config, max_len=tokens, num_seqs=1)
    driver.runner.kv_cache.ahead.stop()
    for blocks in driver.runner.kv_cache._blocks:
        blocks[:] = 1  # all of the cache is there
    ids, one = np.arange(tokens, dtype=np.int32), np.ones(1, np.int32)
    whole = one * np.int32(tokens)
    batch = StepBatch(ids % 97, ids, ids, np.arange(tokens // 8, dtype=np.int32)[None], whole, whole, whole - 1)
    gc.collect()  # what earlier tests left must not go in between
    before = psutil.Process().memory_info().rss
    driver.runner.execute(batch)
    grown = psutil.Process().memory_info().rss - before
    assert grown < memory.activation_bytes(driver.runner.model.config, tokens, 1)


def test_real_machine_is_consistent() -> None:
    assert 0 < memory.available_memory() <= memory.total_memory()
