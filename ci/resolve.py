"""Resolve the extras afresh, without locks and without installing, as a user's `pip install` or `uv pip install` would today.

Old releases of vLLM have open upper bounds, so what comes out after them can break them: a resolve that fails, or that brings another torch
than the lock has, is noticed here before a user notices it. `python ci/resolve.py --by pip vllm091`
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from lock import LOCKS, project, releases

PINNED = ("vllm", "torch")
"""What every resolve must agree on: the rest may move within the extra's caps."""


def requirements(extra: str) -> list[str]:
    declared = project()["project"]
    return [*declared["dependencies"], *declared["optional-dependencies"][extra]]


def by_uv(wanted: list[str]) -> dict[str, str]:
    done = subprocess.run(
        ["uv", "pip", "compile", "--quiet", "--no-header", "--no-annotate", "--python", sys.executable, "-"],
        input="\n".join(wanted),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return dict(line.split("==", 1) for line in done.stdout.splitlines() if "==" in line)


def by_pip(wanted: list[str]) -> dict[str, str]:
    """By the newest pip: from 26 on a dry run downloads no wheel whose metadata the index, or a part of the file, gives."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        options = [
            "--dry-run",
            "--ignore-installed",
            "--no-cache-dir",
            "--use-feature=fast-deps",
            "--report",
            str(report),
        ]
        newest = ["uvx", "--quiet", "--python", sys.executable, "pip@latest"]
        subprocess.run([*newest, "install", "--quiet", *options, *wanted], check=True)
        found = json.loads(report.read_text(encoding="utf-8"))["install"]
    return {item["metadata"]["name"].lower(): item["metadata"]["version"] for item in found}


def locked(extra: str) -> dict[str, str]:
    lock = (LOCKS / f"{extra}.txt").read_text(encoding="utf-8")
    return dict(re.findall(r"^([a-z0-9._-]+)==(\S+)", lock, re.MULTILINE))


def main() -> int:
    parser = argparse.ArgumentParser(description="Resolve the extras afresh, without locks and without installing.")
    parser.add_argument("extras", nargs="*", metavar="EXTRA", help="default: all")
    parser.add_argument("--by", choices=("uv", "pip"), default="uv", help="default: uv; pip takes up to a minute")
    options = parser.parse_args()
    extras = options.extras or [release["extra"] for release in releases()]
    resolve = by_uv if options.by == "uv" else by_pip
    wrong = 0
    with ThreadPoolExecutor() as at_once:  # the time passes in waiting for the index
        found = list(at_once.map(resolve, map(requirements, extras)))
    for extra, resolved in zip(extras, found):
        print(f"{extra} by {options.by}: {len(resolved)} packages", flush=True)
        for name in PINNED:
            if resolved.get(name) != locked(extra)[name]:
                print(f"  {name} {resolved.get(name)}, the lock has {locked(extra)[name]}", file=sys.stderr)
                wrong = 1
    return wrong


if __name__ == "__main__":
    sys.exit(main())
