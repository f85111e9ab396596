"""Whether models can be stored: the hub's cache writable, and room for them."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from vllm_mindspore.cli.doctor.finding import Finding, Remedy, note, ok, problem
from vllm_mindspore.cli.doctor.surroundings import Surroundings

NAME = "disk"
LOOKS_AT = "whether HF_HOME and the temporary folder are writable, and their room"
FOLLOWS = ()

_GIB = 1 << 30
_LITTLE = 5 * _GIB
_WHERE = "in the shell that starts vLLM"


def run(around: Surroundings) -> Iterator[Finding]:
    folders = {
        "HF_HOME": hub_home(around.environ),
        "TMPDIR": Path(around.environ.get("TMPDIR") or tempfile.gettempdir()),
    }
    for variable, folder in folders.items():
        there = what_is_there(folder)
        if not is_writable(there):
            why = "is not writable" if there == folder else f"cannot be made, as {there} is not writable"
            yield problem(f"{folder} ({variable}) {why}", Remedy(f"export {variable}=/a/writable/folder", _WHERE))
            continue
        free = shutil.disk_usage(there).free
        text = f"{folder} ({variable}) is writable, {free / _GIB:.0f} GiB free"
        yield note(f"{text}: few models fit") if variable == "HF_HOME" and free < _LITTLE else ok(text)


def what_is_there(folder: Path) -> Path:
    """The folder, or what would have to be written to make it."""
    return next(parent for parent in (folder, *folder.parents) if parent.exists())


def is_writable(folder: Path) -> bool:
    """Whether this user may make files in a folder."""
    return folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)


def hub_home(environ: Mapping[str, str]) -> Path:
    """Where the hub's client keeps models, tokens and the like."""
    cache = environ.get("XDG_CACHE_HOME") or Path(environ.get("HOME") or "~").expanduser() / ".cache"
    return Path(environ.get("HF_HOME") or Path(cache) / "huggingface").expanduser()
