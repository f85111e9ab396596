"""What a package index says today of the extras and the locks. Nothing is installed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from vllm_mindspore.matrix import MACHINES, rows

pytestmark = pytest.mark.slow

ENVIRONMENT = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
EXTRAS = sorted({row.extra for row in rows()})


def run(*command: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env={**ENVIRONMENT, **environment})


@pytest.mark.parametrize("resolver", ["uv", "pip"])
def test_a_fresh_resolve_of_every_extra_still_finds_what_was_run(resolver: str) -> None:
    done = run(sys.executable, ROOT / "ci/resolve.py", "--by", resolver)
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == EXTRAS


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("extra", EXTRAS)
def test_every_lock_can_be_installed(extra: str, machine: str, tmp_path: Path) -> None:
    made = run("uv", "venv", "--python", sys.executable, tmp_path / "venv")
    assert made.returncode == 0, made.stderr
    done = run(
        *("uv", "pip", "install", "--dry-run", "--require-hashes", "-r", ROOT / "locks" / f"{extra}.txt"),
        *("--python", tmp_path / "venv/bin/python", "--python-platform", f"{machine}-manylinux_2_34"),
        VLLM_TARGET_DEVICE="empty",
    )
    assert done.returncode == 0, done.stderr
    assert "Would install" in done.stderr
