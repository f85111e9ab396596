"""What several kinds of tests need."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent

# The installed package is what is tested: the checkout, where compat and kernels lie elsewhere, comes last on the path (for tests.*),
# and no process that a test starts finds it in its working directory.
sys.path.append(str(ROOT))

# What a shell starts with & ignores this signal, and so would every process that a test starts, and interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def _outside_the_checkout(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    os.chdir(tmp_path_factory.mktemp("cwd"))
    yield
    os.chdir(ROOT)


@pytest.fixture(scope="session")
def command() -> str:
    """The installed `vllm-mindspore`."""
    return str(Path(sys.executable).with_name("vllm-mindspore"))


@pytest.fixture(scope="session")
def demo_model(command: str) -> Path:
    """Folder of a real, small checkpoint, made at its first use (about a minute) by a process of its own."""
    done = subprocess.run([command, "demo-model"], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.splitlines()[-1])


@pytest.fixture(scope="session")
def reference(demo_model: Path) -> Any:
    """The demo model as transformers computes it in float32."""
    from tests.reference import Reference

    return Reference(demo_model)
