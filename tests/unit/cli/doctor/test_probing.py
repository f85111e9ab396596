"""Processes that fail, crash, hang or take long."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest

from vllm_mindspore.cli.doctor.probing import Answers, Probes


@pytest.fixture
def mindspore(tmp_path: Path) -> Path:
    """A module in the place of MindSpore, for the probe `graph` to import."""
    return tmp_path / "mindspore.py"


def ask(folder: Path, seconds: float = 30) -> Answers:
    with Probes(seconds, {**os.environ, "PYTHONPATH": str(folder)}) as probes:
        return probes.ask("graph")


def test_an_exception_is_told_with_its_place(mindspore: Path) -> None:
    mindspore.write_text("import os\n\nraise ImportError('libgomp is missing')\n")
    told = ask(mindspore.parent).parts["mindspore"]
    assert told["error"] == "ImportError: libgomp is missing"
    assert told["at"] == "mindspore:3"
    assert "mindspore" in told["through"]


def test_a_crash_is_told(mindspore: Path) -> None:
    mindspore.write_text("import os\nos.abort()\n")
    assert ask(mindspore.parent) == Answers({}, "killed by signal 6")


def test_what_hangs_is_killed_when_time_is_up(mindspore: Path) -> None:
    mindspore.write_text("import time\ntime.sleep(600)\n")
    begin = time.monotonic()
    assert ask(mindspore.parent, 2) == Answers({}, "no answer within 2 s", timed_out=True)
    assert time.monotonic() - begin < 6


def test_what_works_is_waited_for(mindspore: Path) -> None:
    mindspore.write_text(
        "import time\nend = time.process_time() + 3\nwhile time.process_time() < end: pass\nraise ImportError('late')\n"
    )
    assert ask(mindspore.parent, 1).parts["mindspore"]["error"] == "ImportError: late"


def test_a_full_disk_is_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(**_: Any) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryDirectory", full)
    with Probes(30, os.environ) as probes:
        assert probes.ask("kernels") == Answers({}, "No space left on device")


def test_a_checkout_in_the_working_directory_is_not_taken_for_the_installed_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "numpy.py").write_text("raise ImportError('a checkout')\n")
    monkeypatch.chdir(tmp_path)
    with Probes(30, os.environ) as probes:
        assert "isa" in probes.ask("kernels").parts["kernels"]


def test_a_probe_is_run_once_and_left_behind_by_nobody(mindspore: Path, tmp_path: Path) -> None:
    mindspore.write_text(
        f"import os, time\nopen({str(tmp_path / 'pids')!r}, 'a').write(f'{{os.getpid()}} ')\nraise ImportError\n"
    )
    with Probes(30, {**os.environ, "PYTHONPATH": str(tmp_path)}) as probes:
        assert probes.ask("graph") is probes.ask("graph")
    assert len((tmp_path / "pids").read_text().split()) == 1
