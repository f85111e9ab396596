"""What a process that imports vLLM, or `vllm-mindspore serve`, sees of us; tests/conformance/test_processes.py starts engines."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.serving import free_port

pytestmark = pytest.mark.slow


def test_vllm_runs_without_us_if_told_so_and_we_keep_quiet(tmp_path: Path) -> None:
    script = "from vllm.platforms import current_platform; print(type(current_platform).__name__)"
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "VLLM_PLUGINS": ""},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1] == "UnspecifiedPlatform"
    assert "vllm-mindspore" not in done.stdout + done.stderr


def test_importing_vllm_fails_with_the_reason_if_we_cannot_be_its_platform(tmp_path: Path) -> None:
    """vLLM alone would swallow the error and go on without a platform."""
    (tmp_path / "sitecustomize.py").write_text(
        "import vllm_mindspore.matrix as matrix\n"
        "def fail(): raise ValueError('No row for vLLM 9.9.9.')\n"
        "matrix.row_for_installed_vllm = fail\n"
    )
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", "import vllm"],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode != 0
    reason = "vllm-mindspore cannot be vLLM's platform: No row for vLLM 9.9.9. Run `vllm-mindspore check-env`"
    assert reason in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("environment", "arguments", "said"),
    [
        (
            {"VLLM_PLUGINS": "other"},
            [],
            "VLLM_PLUGINS='other' keeps vLLM from loading this plugin: add mindspore to it or unset it.",
        ),
        ({}, ["--enable-lora"], "vllm-mindspore does not support LoRA yet: remove --enable-lora."),
        ({}, ["--max-model-len", "99999999"], "User-specified max_model_len (99999999) is greater than the derived "),
        (
            {},
            ["--tensor-parallel-size", "2"],
            "Total number of attention heads (9) must be divisible by tensor parallel size (2).",
        ),
        ({}, ["--port", "99999"], "--host and --port name no address that is free here: bind(): port must be 0-65535."),
        ({}, ["--config", "missing.yaml"], "[Errno 2] No such file or directory: 'missing.yaml'"),
    ],
)
def test_serve_says_in_one_line_why_it_does_not(
    command: str, demo_model: Path, environment: dict[str, str], arguments: list[str], said: str
) -> None:
    port = [] if "--port" in arguments else ["--port", str(free_port())]
    done = subprocess.run(
        [command, "serve", str(demo_model), *port, *arguments],
        env={**os.environ, "VLLM_USE_V1": "1", **environment}, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(f"vllm-mindspore serve: {said}")
    assert "Traceback" not in done.stderr
