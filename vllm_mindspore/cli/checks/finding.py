"""What a check finds, and how it looks into what may be broken."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

_SECONDS = 240


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    status: str
    """ok, problem or note."""
    text: str
    remedy: str | None = None
    """The command that mends a problem."""


@dataclass(frozen=True)
class Probe:
    """What a piece of Python printed in a process of its own."""

    result: Any
    """The JSON value of its last line, or None if it failed."""
    error: str
    """Its last words if it failed."""


def probe(code: str) -> Probe:
    """Run Python where it can fail, crash or hang without harm. Its last line of output must be JSON."""
    try:
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=_SECONDS)
    except subprocess.TimeoutExpired:
        return Probe(None, f"no answer within {_SECONDS} s")
    try:
        if done.returncode == 0:
            return Probe(json.loads(done.stdout.splitlines()[-1]), "")
    except (ValueError, IndexError):
        pass
    words = [line for line in done.stderr.splitlines() if line.strip()] or [f"exit code {done.returncode}"]
    return Probe(None, words[-1].strip())
