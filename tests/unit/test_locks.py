"""The locks, as far as they can be judged without an index; tests/e2e/test_resolve.py asks one."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from vllm_mindspore.matrix import Row, rows


def test_no_lock_is_older_than_what_it_is_made_from() -> None:
    done = subprocess.run([sys.executable, ROOT / "ci/lock.py", "--check"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("row", {row.extra: row for row in rows()}.values(), ids=lambda row: row.extra)
def test_a_lock_pins_the_row_with_hashes_and_names_no_index(row: Row) -> None:
    lock = (ROOT / "locks" / f"{row.extra}.txt").read_text(encoding="utf-8")
    assert f"\nvllm=={row.vllm} " in lock
    assert f"\ntorch{row.torch} " in lock
    pinned = re.split(r"^(?=\w)", lock, flags=re.MULTILINE)[1:]
    assert all("--hash=sha256:" in entry for entry in pinned)
    assert len(pinned) > 100
    assert "://" not in lock
    assert "--index-url" not in lock


def test_a_resolve_that_brings_another_torch_than_was_run_is_noticed(tmp_path: Path) -> None:
    uv = tmp_path / "uv"
    uv.write_text("#!/bin/sh\ncat >/dev/null\necho vllm==0.9.1\necho torch==2.8.0\n")
    uv.chmod(0o755)
    done = subprocess.run(
        [sys.executable, ROOT / "ci/resolve.py", "vllm091"],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
    )
    assert (done.returncode, done.stderr) == (1, "  torch 2.8.0, the lock has 2.7.0\n")
