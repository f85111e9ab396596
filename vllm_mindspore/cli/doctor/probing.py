"""Look into what may be broken: each probe is a Python process of its own, which may fail, crash or hang without harm."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# Without the working directory on the path: there may lie a checkout of something, which no installed command would import.
_START = (
    "import sys; sys.path[:] = [folder for folder in sys.path if folder]; "
    "from vllm_mindspore.cli.doctor.probes import main; main(*sys.argv[1:])"
)

PROBED = ("numpy", "torch", "tokenizers", "transformers", "vllm", "mindspore", "vllm-mindspore")
"""Distributions that the probes import, which too little of a machine may keep them from."""
_STEP = 0.25
_IDLE = 1.0
"""Seconds without work after which a process that should have answered is held to hang."""
_LEAST_TICKS = 2
"""Hundredths of a second of work in a step, below which it does nothing."""
_PATIENCE = 9
"""How many times the seconds given a process may work on."""


@dataclass(frozen=True)
class Answers:
    """What a probe told, part by part."""

    parts: Mapping[str, Any] = field(default_factory=dict)
    """Part -> JSON value. A part that the probe did not come to is not there."""
    error: str = ""
    """Why parts are missing: the process's last words, or that time was up."""
    timed_out: bool = False


class Probes:
    """Runs each probe once, whoever asks, several side by side. A context manager: no process outlives it.

    Args:
        seconds: from now on, until when all probes should have answered. One that still works then, on a busy machine or a slow disk, is
            waited for; one that does nothing hangs, and is killed.
        environ: environment variables of the processes.
    """

    def __init__(self, seconds: float, environ: Mapping[str, str]) -> None:
        self.seconds = seconds
        self._deadline = time.monotonic() + seconds
        self._last = self._deadline + _PATIENCE * seconds
        self._environ = dict(environ)
        self._pool = ThreadPoolExecutor(max_workers=8)
        self._lock = threading.Lock()
        self._answers: dict[str, Future[Answers]] = {}
        self._processes: list[subprocess.Popen[bytes]] = []
        self._closed = False

    def __enter__(self) -> Probes:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._pool.shutdown()

    def stop(self) -> None:
        """Kill what still runs; nobody waits for it any more."""
        with self._lock:
            self._closed = True
            for process in self._processes:
                _kill(process)

    def ask(self, name: str, **arguments: Any) -> Answers:
        """Wait for what a module of `doctor.probes` tells.

        Args:
            name: of the module.
            arguments: of its `look`, as JSON can hold them.
        """
        given = json.dumps(arguments, sort_keys=True)
        with self._lock:
            key = f"{name} {given}"
            if key not in self._answers:
                self._answers[key] = self._pool.submit(self._run, name, given)
        return self._answers[key].result()

    def _run(self, name: str, arguments: str) -> Answers:
        try:
            return self._look(name, arguments)
        except OSError as error:  # there is no room for files or processes
            return Answers({}, str(error))

    def _look(self, name: str, arguments: str) -> Answers:
        with tempfile.TemporaryDirectory(prefix="vllm-mindspore-check-env-") as folder:
            words = Path(folder) / "words"
            with words.open("wb") as output:
                process = self._start([sys.executable, "-c", _START, name, folder, arguments], output)
                code = self._wait(process)
            if code is None:
                _kill(process)
                return Answers(_parts(folder), f"no answer within {self.seconds:g} s", timed_out=True)
            lines = [line.strip() for line in words.read_text(errors="replace").splitlines() if line.strip()]
            ended = f"killed by signal {-code}" if code < 0 else f"exit code {code}"
            return Answers(_parts(folder), "" if code == 0 else lines[-1] if lines and code > 0 else ended)

    def _wait(self, process: subprocess.Popen[bytes]) -> int | None:
        """The exit code; None if the process hangs."""
        activity, worked_at = 0, time.monotonic()
        while True:
            try:
                return process.wait(_STEP)
            except subprocess.TimeoutExpired:
                now = time.monotonic()
            if now < self._deadline - _IDLE:
                worked_at = now
                continue
            before, activity = activity, _activity(process.pid)
            if activity - before >= _LEAST_TICKS:
                worked_at = now
            if now > self._last or (now > self._deadline and now - worked_at >= _IDLE):
                return None

    def _start(self, command: list[str], output: Any) -> subprocess.Popen[bytes]:
        with self._lock:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=self._environ,
                start_new_session=True,  # so that it can be killed together with what it started
            )
            self._processes.append(process)
            if self._closed:
                _kill(process)
        return process


def _activity(group: int) -> int:
    """Clock ticks that a group of processes has computed; one that waits for a disk counts as working."""
    ticks = 0
    for file in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, of_group, *rest = file.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has ended
        if int(of_group) == group:
            ticks += int(rest[8]) + int(rest[9]) + (time.monotonic_ns() // 10_000_000 if state == "D" else 0)
    return ticks


def _kill(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _parts(folder: str) -> dict[str, Any]:
    return {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in Path(folder).glob("*.json")}
