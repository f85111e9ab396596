"""Where MindSpore runs, and what is left when vLLM goes."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.engines import IS_V1, environment
from tests.serving import survivors

pytestmark = pytest.mark.slow

SCRIPT = """
import json, os, sys
import psutil, torch

if __name__ == "__main__":
    if os.environ.get("TORCH_FIRST"):
        torch.randn(512, 512) @ torch.randn(512, 512)
        torch.randn(64, 4096).softmax(-1)
    if os.environ.get("MINDSPORE_FIRST"):
        import mindspore
        print(mindspore.ops.add(mindspore.Tensor([1.0]), mindspore.Tensor([2.0])))
    from vllm import LLM, SamplingParams

    llm = LLM(sys.argv[1], max_model_len=256, num_gpu_blocks_override=64, **json.loads(sys.argv[2]))
    params = [SamplingParams(temperature=t, seed=1, top_p=0.9, max_tokens=6, ignore_eos=True) for t in (0.0, 1.0)]
    outputs = llm.generate(["The capital of France is"] * 2, params, use_tqdm=False)
    # Written to a file of its own: the engine's log lines share standard output.
    environments = [open(f"/proc/{child.pid}/environ").read() for child in psutil.Process().children()]
    report = {
        "mindspore": "mindspore" in sys.modules,
        "text": outputs[0].outputs[0].text,
        "count": len(outputs[1].outputs[0].token_ids),
        "children told how many threads": sum("OMP_NUM_THREADS" in environment for environment in environments),
    }
    with open(sys.argv[3], "w") as file:
        json.dump(report, file)
    if os.environ.get("LINGER"):
        import time
        time.sleep(100)
"""


def start(tmp_path: Path, model: Path, more: dict[str, str], **options: Any) -> subprocess.Popen[str]:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    # For its statistics of use vLLM would start one more process, to ask for the processor.
    variables = environment(**more, VLLM_NO_USAGE_STATS="1")
    if "MINDSPORE_FIRST" in more:
        variables.pop("OMP_NUM_THREADS", None)
    return subprocess.Popen(
        [sys.executable, str(script), str(model), json.dumps(options), str(tmp_path / "report.json")],
        env=variables,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip


MINDSPORE_FIRST = {"MINDSPORE_FIRST": "1", "VLLM_WORKER_MULTIPROC_METHOD": "fork"}
MP = {"distributed_executor_backend": "mp"}
ARRANGEMENTS: dict[str, tuple[dict[str, str], dict[str, Any], bool]] = (
    {
        "fork": ({"VLLM_WORKER_MULTIPROC_METHOD": "fork", "TORCH_FIRST": "1"}, {}, False),
        "spawn": ({"VLLM_WORKER_MULTIPROC_METHOD": "spawn"}, {}, False),
        "worker in a process of its own": ({}, MP, False),
        "in process": ({"VLLM_ENABLE_V1_MULTIPROCESSING": "0"}, {}, True),
        "spawn, as MindSpore was used before": (MINDSPORE_FIRST, {}, True),
    }
    if IS_V1
    else {  # LLM's V0 engine is always in its own process
        "in process": ({"TORCH_FIRST": "1", **MINDSPORE_FIRST}, {}, True),
        "mp": ({}, MP, True),  # its first worker is in the engine's process
    }
)


@pytest.mark.parametrize(("more", "options", "in_front_end"), ARRANGEMENTS.values(), ids=list(ARRANGEMENTS))
def test_every_arrangement_of_processes_answers_and_leaves_nothing(
    tmp_path: Path, demo_model: Path, more: dict[str, str], options: dict[str, Any], in_front_end: bool
) -> None:
    process = start(tmp_path, demo_model, more, **options)
    log, _ = process.communicate(timeout=180)
    assert process.returncode == 0, log
    report = json.loads((tmp_path / "report.json").read_text())
    assert "Paris" in report["text"]
    assert report["count"] == 6
    assert report["mindspore"] == in_front_end
    if "MINDSPORE_FIRST" in more:
        assert not report["children told how many threads"]  # MindSpore sets the variable to 1 where it is imported
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
