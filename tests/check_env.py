"""Run the installed `vllm-mindspore check-env` and read its report."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import jsonschema

from tests.conftest import ROOT

DOCUMENT = (ROOT / "docs" / "check-env.md").read_text(encoding="utf-8")
PATIENCE = "240"
"""Seconds for the processes that look, on a machine that does other things as well."""
SMALL_LLAMA: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "torch_dtype": "bfloat16",
    "vocab_size": 1000,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 2048,
}
"""A config.json."""


def run(command: str, *arguments: str, site: Path | None = None, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run it, with a folder in front of all others on Python's path."""
    path = {"PYTHONPATH": str(site)} if site else {}
    return subprocess.run(
        [command, "check-env", "--timeout", PATIENCE, *arguments],
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, **path, **environ},
    )


def report(command: str, *arguments: str, site: Path | None = None, **environ: str) -> dict[str, Any]:
    """Its JSON, held against the documented schema."""
    done = run(command, "--json", *arguments, site=site, **environ)
    told: dict[str, Any] = json.loads(done.stdout)
    (schema,) = re.findall(r"```json\n(.*?)```", DOCUMENT, re.DOTALL)
    jsonschema.validate(told, json.loads(schema))
    assert done.returncode == (0 if told["healthy"] else 1)
    return told


def problems(told: dict[str, Any]) -> list[tuple[str, str, str | None]]:
    """Check, text and what it follows from."""
    return [
        (check["name"], finding["text"], finding["follows_from"])
        for check in told["checks"]
        for finding in check["findings"]
        if finding["status"] == "problem"
    ]


def distribute(site: Path, name: str, version: str, entry_points: str = "") -> None:
    info = site / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (info / "entry_points.txt").write_text(entry_points)


def interrupted(process: subprocess.Popen[str], reached: Path, seconds: float) -> str:
    """What a command says on stderr that gets Ctrl-C as soon as there is a file, and has so many seconds to end."""
    deadline = time.monotonic() + 60
    while not reached.is_file() and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=seconds)
    return said
