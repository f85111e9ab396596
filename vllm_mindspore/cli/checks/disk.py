"""Whether models can be stored: the hub's cache writable, and room for them."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from vllm_mindspore.cli.doctor.finding import Finding, Remedy, note, ok, problem
from vllm_mindspore.cli.doctor.probing import PROBED
from vllm_mindspore.cli.doctor.surroundings import Surroundings

NAME = "disk"
LOOKS_AT = "whether HF_HOME and the temporary folder are writable, and their room"
FOLLOWS = ()

_GIB = 1 << 30
_LITTLE = 5 * _GIB
_TRIED = 1 << 20
"""Bytes that are written to see whether one can."""
_WHERE = "in the shell that starts vLLM"


def run(around: Surroundings) -> Iterator[Finding]:
    home, temporary = hub_home(around.environ), Path(around.environ.get("TMPDIR") or "/tmp")
    there = what_is_there(home)
    why = _obstacle(there)
    if why:
        what = "is not writable" if there == home else f"cannot be made, as {there} is not writable"
        yield _elsewhere("HF_HOME", home, f"{what}: {why}")
    else:
        text = f"{home} (HF_HOME) is writable, {_free(there)}"
        yield note(f"{text}: few models fit") if shutil.disk_usage(there).free < _LITTLE else ok(text)
    why = _obstacle(temporary)
    if not temporary.exists():
        yield _elsewhere("TMPDIR", temporary, "is not there")
    elif why:
        yield _elsewhere("TMPDIR", temporary, f"is not writable: {why}", PROBED)
    else:
        yield ok(f"{temporary} (TMPDIR) is writable, {_free(temporary)}")


def _elsewhere(variable: str, folder: Path, what: str, about: Iterable[str] = ()) -> Finding:
    return problem(f"{folder} ({variable}) {what}", Remedy(f"export {variable}=/a/writable/folder", _WHERE), about)


def _free(folder: Path) -> str:
    return f"{shutil.disk_usage(folder).free / _GIB:.1f} GiB free"


def what_is_there(folder: Path) -> Path:
    """The folder, or what would have to be written to make it."""
    return next(parent for parent in (folder, *folder.parents) if parent.exists())


def is_writable(folder: Path) -> bool:
    """Whether this user can write files in a folder."""
    return not _obstacle(folder)


def _obstacle(folder: Path) -> str:
    """Why no file can be written in a folder, found by trying, as permissions do not tell; empty if one can."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(_TRIED))
    except OSError as error:
        return error.strerror or str(error)
    return ""


def hub_home(environ: Mapping[str, str]) -> Path:
    """Where the hub's client keeps models, tokens and the like."""
    cache = environ.get("XDG_CACHE_HOME") or Path(environ.get("HOME") or "~").expanduser() / ".cache"
    return Path(environ.get("HF_HOME") or Path(cache) / "huggingface").expanduser()
