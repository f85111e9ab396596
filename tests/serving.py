"""Start a server as a user does, and see what is left of it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import openai
import psutil

from tests.engines import environment

READY_WITHIN = 240
MODEL = "smollm2"
"""What the servers of the tests call the demo model."""
QUESTION, ANSWER = "What is the capital of France?", "The capital of France is Paris."


def executable(name: str) -> str:
    """A command of the environment that runs the tests."""
    return str(Path(sys.executable).with_name(name))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def alive(session: int) -> list[psutil.Process]:
    """All processes of a session."""
    found = []
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) == session and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (ProcessLookupError, psutil.NoSuchProcess):
            continue
    return found


def survivors(session: int) -> list[str]:
    """Command lines of processes of a session that are still there; they get ten seconds to go."""
    deadline = time.monotonic() + 10
    while alive(session) and time.monotonic() < deadline:
        time.sleep(0.1)
    return [" ".join(process.cmdline()) for process in alive(session)]


class Server:
    """A server in a session of its own; its output goes to a file.

    Args:
        command: what starts it.
        log: the file.
        port: where it listens of itself; None has it listen on a free one.
    """

    def __init__(self, command: Sequence[str], log: Path, port: int | None = None) -> None:
        self.port = port or free_port()
        told = [] if port else ["--host", "127.0.0.1", "--port", str(self.port)]
        self.url = f"http://127.0.0.1:{self.port}"
        self._log = log
        with log.open("w") as output:
            self.process = subprocess.Popen(
                [*command, *told],
                env=environment(),
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def log(self) -> str:
        return self._log.read_text()

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + READY_WITHIN
        while time.monotonic() < deadline:
            assert self.process.poll() is None, self.log()
            try:
                if httpx.get(f"{self.url}/health", timeout=5).status_code == 200:
                    return
            except httpx.TransportError:
                time.sleep(0.5)
        raise AssertionError(f"not ready within {READY_WITHIN} s:\n{self.log()}")

    def gauge(self, name: str) -> float:
        """The value of one of vLLM's metrics."""
        lines = httpx.get(f"{self.url}/metrics", timeout=10, follow_redirects=True).text.splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith((f"{name}{{", f"{name} ")))

    def processes(self) -> list[psutil.Process]:
        """All that are alive in the server's session."""
        return alive(self.process.pid)

    def terminate(self) -> list[str]:
        """SIGTERM, and the command lines of what is still there ten seconds after the end."""
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(30)
        return survivors(self.process.pid)

    def kill(self) -> None:
        for process in self.processes():
            process.kill()
        self.process.wait(30)


@contextmanager
def serving(command: Sequence[str], log: Path, port: int | None = None) -> Iterator[Server]:
    """A `Server` that is ready, and nothing of it afterwards."""
    server = Server(command, log, port)
    try:
        server.wait_until_ready()
        yield server
    finally:
        server.kill()


def vllm_serve(model: Path) -> list[str]:
    return [executable("vllm"), "serve", str(model), "--served-model-name", MODEL]


def connect(server: Server) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", timeout=120, max_retries=0)


def connect_async(server: Server) -> openai.AsyncOpenAI:
    """For many requests at a time, each of which may take longer."""
    return openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", timeout=180, max_retries=0)


def chat(client: openai.OpenAI, **options: Any) -> Any:
    messages = [{"role": "user", "content": QUESTION}]
    return client.chat.completions.create(**{"model": MODEL, "messages": messages, "temperature": 0, **options})
