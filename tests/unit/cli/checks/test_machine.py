"""Memory, cores, disk, shared memory, limits, locale: what a machine has. Each small check here, right and wrong."""

from __future__ import annotations

import errno
import os
import resource
from pathlib import Path
from typing import Any

import pytest

import vllm_mindspore.cli.checks.locale as locale
from vllm_mindspore.cli.checks import CHECKS, cores, disk, imports, limits, memory, shared_memory
from vllm_mindspore.cli.doctor.examination import examine

GIB = 1 << 30


def test_memory(machine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "total_memory", lambda: 16 * GIB)
    monkeypatch.setattr(memory, "available_memory", lambda: 8 * GIB)
    assert machine.is_fine(memory) == "8.0 GiB of 16.0 GiB are free"
    machine.environ = {"VLLM_CPU_KVCACHE_SPACE": "12"}
    (found,) = machine.problems(memory)
    assert "VLLM_CPU_KVCACHE_SPACE=12 asks for 12 GiB" in found.text
    monkeypatch.setattr(memory, "available_memory", lambda: 2 * GIB)
    machine.environ = {}
    assert [found.status for found in machine.look(memory)] == ["note"]
    monkeypatch.setattr(memory, "available_memory", lambda: GIB // 2)
    (found,) = machine.problems(memory)
    assert found.text == "0.5 GiB of 16.0 GiB are free: vLLM itself takes about 2 GiB"
    assert "vllm" in found.about


def test_cores(machine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cores, "usable_cores", lambda: 4)
    assert machine.is_fine(cores).startswith("4 of ")
    monkeypatch.setattr(cores.os, "cpu_count", lambda: 64)
    for threads in "5", "64":  # than may be used, though there are so many
        machine.environ = {"OMP_NUM_THREADS": threads}
        (found,) = machine.look(cores)
        assert found.status == "note"
        assert found.remedy.command == "export OMP_NUM_THREADS=4"
    machine.environ = {}
    monkeypatch.setattr(cores, "usable_cores", lambda: 1)
    assert machine.look(cores)[0].text.endswith("vLLM's front end and the model will share it")


def test_disk(machine: Any) -> None:
    machine.environ = {"HF_HOME": str(machine.root / "not" / "yet"), "TMPDIR": str(machine.root)}
    assert f"{machine.root / 'not' / 'yet'} (HF_HOME) is writable" in machine.look(disk)[0].text
    machine.environ["HF_HOME"] = str(machine.write("a_file") / "huggingface")
    (found,) = machine.problems(disk)
    assert (
        found.text
        == f"{machine.root}/a_file/huggingface (HF_HOME) cannot be made, as {machine.root}/a_file is not writable: Not a directory"
    )
    assert found.remedy.command.startswith("export HF_HOME=")


def test_a_temporary_folder_that_is_not_there_is_named(machine: Any) -> None:
    machine.environ = {"HF_HOME": str(machine.root), "TMPDIR": "/nonexistent"}
    (found,) = machine.problems(disk)
    assert found.text == "/nonexistent (TMPDIR) is not there"
    assert not found.about


def test_a_disk_with_little_room_is_a_note(machine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.environ = {"HF_HOME": str(machine.root), "TMPDIR": str(machine.root)}
    usage = type("Usage", (), {"free": 4 * GIB, "total": 8 * GIB})
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda folder: usage)
    assert [one.status for one in machine.look(disk) if "few models fit" in one.text] == ["note"]
    usage.free = 6 * GIB
    machine.is_fine(disk)


def test_a_full_disk_is_not_writable(machine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even for root, whom permissions do not keep from it."""

    def full(**_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(disk.tempfile, "TemporaryFile", full)
    machine.environ = {"HF_HOME": str(machine.root), "TMPDIR": str(machine.root)}
    cache, temporary = machine.problems(disk)
    assert cache.text == f"{machine.root} (HF_HOME) is not writable: No space left on device"
    assert temporary.text == f"{machine.root} (TMPDIR) is not writable: No space left on device"
    assert "mindspore" in temporary.about


def test_looking_leaves_nothing_behind(machine: Any) -> None:
    machine.environ = {"HF_HOME": str(machine.root), "TMPDIR": str(machine.root)}
    before = list(machine.root.iterdir())
    machine.look(disk)
    assert list(machine.root.iterdir()) == before


def test_shared_memory(machine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (found,) = machine.problems(shared_memory)
    assert found.text == "/dev/shm is not there or not writable"
    (machine.root / "dev" / "shm").mkdir(parents=True)
    usage = type("Usage", (), {"free": 8 * GIB, "total": 8 * GIB})
    monkeypatch.setattr(shared_memory.shutil, "disk_usage", lambda folder: usage)
    assert machine.is_fine(shared_memory) == "/dev/shm has 8192 MiB free of 8192"
    usage.free = usage.total = 64 << 20
    (found,) = machine.look(shared_memory)
    assert found.status == "note"
    assert "--shm-size" in found.remedy.command


def test_limits(machine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    allowed = {
        resource.RLIMIT_NOFILE: (65536, 65536),
        resource.RLIMIT_AS: (resource.RLIM_INFINITY, resource.RLIM_INFINITY),
    }
    monkeypatch.setattr(limits.resource, "getrlimit", allowed.__getitem__)
    assert machine.is_fine(limits) == "65536 open files are allowed"
    allowed[resource.RLIMIT_NOFILE] = (256, 4096)
    allowed[resource.RLIMIT_AS] = (8 * GIB, 8 * GIB)
    files, space = machine.problems(limits)
    assert files.remedy.command == "ulimit -n 4096"
    assert space.remedy.command == "ulimit -v unlimited"
    assert "as root" in space.remedy.by_hand
    allowed[resource.RLIMIT_NOFILE] = (256, 300)
    allowed[resource.RLIMIT_AS] = (8 * GIB, resource.RLIM_INFINITY)
    files, space = machine.problems(limits)
    assert files.remedy.command == "ulimit -n 65536"
    assert "as root" in files.remedy.by_hand
    assert "as root" not in space.remedy.by_hand


def test_few_open_files_are_a_note_and_may_be_raised_by_hand(machine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    allowed = {resource.RLIMIT_NOFILE: (1024, 1 << 20), resource.RLIMIT_AS: unlimited}
    monkeypatch.setattr(limits.resource, "getrlimit", allowed.__getitem__)
    (found,) = machine.look(limits)
    assert found.status == "note"
    assert found.remedy.command == "ulimit -n 65536"
    assert "as root" not in found.remedy.by_hand
    allowed[resource.RLIMIT_NOFILE] = (1024, 2048)
    (found,) = machine.look(limits)
    assert "as root" in found.remedy.by_hand


def test_a_limit_is_the_cause_of_imports_that_fail(machine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    allowed = {resource.RLIMIT_NOFILE: unlimited, resource.RLIMIT_AS: (GIB, GIB)}
    monkeypatch.setattr(limits.resource, "getrlimit", allowed.__getitem__)
    machine.install_row()
    machine.answer("libraries", {"numpy": {}}, error="killed by signal 6")
    machine.answer("graph", error="killed by signal 6")
    assert CHECKS.index(limits) < CHECKS.index(imports)
    found = {one.name: one for one in examine([limits, imports], machine.around())}
    assert {one.follows_from for one in found["imports"].diagnoses if one.finding.status == "problem"} == {"limits"}


def test_locale(machine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locale, "encoding_of_files", lambda: "UTF-8")
    assert machine.is_fine(locale) == "Files and their names are UTF-8"
    monkeypatch.setattr(locale, "encoding_of_files", lambda: "ANSI_X3.4-1968")
    (found,) = machine.problems(locale)
    assert "reads files as ANSI_X3.4-1968" in found.text


def test_this_machine_is_looked_at_without_a_crash(machine: Any) -> None:
    machine.root, machine.environ = Path("/"), dict(os.environ)
    for check in (memory, cores, disk, shared_memory, limits, locale):
        assert list(check.run(machine.around())), check
