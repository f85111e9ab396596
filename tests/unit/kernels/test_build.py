"""What is said where the kernels cannot be built."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import ROOT


@pytest.mark.skipif(not shutil.which("cmake"), reason="no cmake outside the build's own environment")
def test_a_missing_compiler_is_named_and_looked_for_again(tmp_path: Path) -> None:
    def configure(**environment: str) -> tuple[int, str]:
        asked = ["cmake", "-S", ROOT / "kernels/cpu/csrc", "-B", tmp_path]
        done = subprocess.run(asked, capture_output=True, text=True, timeout=120, env={**os.environ, **environment})
        return done.returncode, " ".join(done.stderr.split())

    code, said = configure(CXX=str(tmp_path / "missing"))
    assert code != 0
    assert "there is no C++ compiler: install g++ 10 or later (apt-get install g++), or set CXX to one." in said
    assert configure()[0] == 0
