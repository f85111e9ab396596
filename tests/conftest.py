"""What several kinds of tests need."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def demo_model() -> Path:
    """Folder of a real, small checkpoint, made at its first use (about a minute) by a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "vllm_mindspore.cli.main", "demo-model"], capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.splitlines()[-1])
