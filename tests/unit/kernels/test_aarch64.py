"""The kernels on aarch64: cross-compiled and run under an emulator."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[3] / "ci" / "aarch64.sh"
TOOLS = ("cmake", "ninja", "aarch64-linux-gnu-g++", "qemu-aarch64")
MISSING = [tool for tool in TOOLS if shutil.which(tool) is None]


@pytest.mark.slow
@pytest.mark.skipif(bool(MISSING), reason=f"{', '.join(MISSING)} not installed: see ci/aarch64.sh")
def test_the_kernels_agree_with_plain_loops_on_aarch64(tmp_path: Path) -> None:
    done = subprocess.run([str(SCRIPT), str(tmp_path)], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    for name in ("neon", "portable"):
        assert f"{name}: conversions, matmul, attention, experts and rms_norm agree with plain loops" in done.stdout
