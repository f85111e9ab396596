"""Where MindSpore runs, and what is left when vLLM goes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

pytestmark = pytest.mark.slow

SCRIPT = """
import json, os, sys
import torch

if __name__ == "__main__":
    if os.environ.get("TORCH_FIRST"):
        torch.randn(512, 512) @ torch.randn(512, 512)
        torch.randn(64, 4096).softmax(-1)
    if os.environ.get("MINDSPORE_FIRST"):
        import mindspore
        print(mindspore.ops.add(mindspore.Tensor([1.0]), mindspore.Tensor([2.0])))
    from vllm import LLM, SamplingParams

    llm = LLM(sys.argv[1], max_model_len=256, **json.loads(sys.argv[2]))
    params = [SamplingParams(temperature=t, seed=1, top_p=0.9, max_tokens=6, ignore_eos=True) for t in (0.0, 1.0)]
    outputs = llm.generate(["The capital of France is"] * 2, params, use_tqdm=False)
    # Written to a file of its own: the engine's log lines share standard output.
    report = {"mindspore": "mindspore" in sys.modules, "text": outputs[0].outputs[0].text, "count": len(outputs[1].outputs[0].token_ids)}
    with open(sys.argv[3], "w") as file:
        json.dump(report, file)
    if os.environ.get("LINGER"):
        import time
        time.sleep(100)
"""


def start(tmp_path: Path, model: Path, environment: dict[str, str], **options: Any) -> subprocess.Popen[str]:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    cleared = {name: value for name, value in os.environ.items() if not name.startswith("VLLM_")}
    return subprocess.Popen(
        [sys.executable, str(script), str(model), json.dumps(options), str(tmp_path / "report.json")],
        env={**cleared, "VLLM_CPU_KVCACHE_SPACE": "1", **environment},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip


def survivors(session: int) -> list[str]:
    """Command lines of processes of a session that are still there; they get five seconds to go."""
    left: list[psutil.Process] = []
    for _ in range(50):
        left = []
        for process in psutil.process_iter():
            try:
                if os.getsid(process.pid) == session and process.status() != psutil.STATUS_ZOMBIE:
                    left.append(process)
            except (ProcessLookupError, psutil.NoSuchProcess):
                continue
        if not left:
            break
        time.sleep(0.1)
    return [" ".join(process.cmdline()) for process in left]


@pytest.mark.parametrize(
    ("environment", "options", "in_front_end"),
    [
        ({"VLLM_WORKER_MULTIPROC_METHOD": "fork", "TORCH_FIRST": "1"}, {}, False),
        ({}, {"distributed_executor_backend": "mp"}, False),
        ({"VLLM_ENABLE_V1_MULTIPROCESSING": "0"}, {}, True),
        ({"MINDSPORE_FIRST": "1", "VLLM_WORKER_MULTIPROC_METHOD": "fork"}, {}, True),
    ],
    ids=["fork", "worker in a process of its own", "in process", "spawn, as MindSpore was used before"],
)
def test_every_arrangement_of_processes_answers_and_leaves_nothing(
    tmp_path: Path, demo_model: Path, environment: dict[str, str], options: dict[str, Any], in_front_end: bool
) -> None:
    process = start(tmp_path, demo_model, environment, **options)
    log, _ = process.communicate(timeout=180)
    assert process.returncode == 0, log
    report = json.loads((tmp_path / "report.json").read_text())
    assert "Paris" in report["text"]
    assert report["count"] == 6
    assert report["mindspore"] == in_front_end
    assert not survivors(process.pid)


def test_nothing_outlives_an_interrupted_front_end(tmp_path: Path, demo_model: Path) -> None:
    process = start(tmp_path, demo_model, {"LINGER": "1"})
    deadline = time.monotonic() + 120
    while not (tmp_path / "report.json").exists() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    log, _ = process.communicate(timeout=60)
    assert (tmp_path / "report.json").exists(), log
    assert not survivors(process.pid)


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
    ],
)
def test_serve_says_in_one_line_why_it_does_not(
    demo_model: Path, environment: dict[str, str], arguments: list[str], said: str
) -> None:
    script = "import sys; from vllm_mindspore.cli.serve import run; sys.exit(run(sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", script, str(demo_model), *arguments],
        env={**os.environ, "VLLM_USE_V1": "1", **environment}, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == f"vllm-mindspore serve: {said}"
    assert "Traceback" not in done.stderr
