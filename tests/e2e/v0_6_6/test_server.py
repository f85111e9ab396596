"""What is particular to servers of vLLM 0.6.6: ways to start one, and how a refusal ends it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.serving import ANSWER, MODEL, chat, connect, executable, serving

pytestmark = pytest.mark.slow

OPTIONS = ["--served-model-name", MODEL, "--max-model-len", "512", "--max-num-seqs", "16"]


@pytest.mark.parametrize("how", ["module, engine in the same process", "vllm-mindspore serve"])
def test_other_ways_to_start_a_server(demo_model: Path, tmp_path: Path, how: str) -> None:
    module = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(demo_model)]
    command = {
        "module, engine in the same process": [*module, "--disable-frontend-multiprocessing"],
        "vllm-mindspore serve": [executable("vllm-mindspore"), "serve", str(demo_model)],
    }[how]
    with serving([*command, *OPTIONS], tmp_path / "log") as server:
        assert chat(connect(server)).choices[0].message.content == ANSWER
        httpx.get(f"{server.url}/metrics", timeout=10, follow_redirects=True).raise_for_status()
        assert server.terminate() == []


@pytest.mark.parametrize(
    ("program", "arguments", "said"),
    [
        ("vllm", ["--enable-lora"], "StartupRefused: vllm-mindspore does not support LoRA yet: remove --enable-lora."),
        ("vllm-mindspore", ["--enable-lora"], "serve: vllm-mindspore does not support LoRA yet: remove --enable-lora."),
        ("vllm", ["--num-gpu-blocks-override", "10000000"], "so lower --num-gpu-blocks-override."),
    ],
    ids=["vllm serve", "vllm-mindspore serve", "found by the engine"],
)
def test_a_refusal_ends_the_server_and_its_engine(
    demo_model: Path, program: str, arguments: list[str], said: str
) -> None:
    """vLLM starts its engine's process before it looks at the options, and waits for it."""
    done = subprocess.run(
        [executable(program), "serve", str(demo_model), *OPTIONS, *arguments],
        capture_output=True, text=True, timeout=150,
    )  # fmt: skip
    assert done.returncode == 1
    lines = (done.stdout + done.stderr).splitlines()
    assert [line for line in lines if line.endswith(said)], done.stderr
    if program == "vllm-mindspore":
        assert lines[-1].endswith(said)
        assert "Traceback" not in done.stderr
