"""Whether packages are complete: an interrupted or half-upgraded installation leaves files out."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import Distribution
from pathlib import Path

from vllm_mindspore.cli.doctor.finding import Finding, Remedy, note, ok, problem
from vllm_mindspore.cli.doctor.installing import OURSELVES, install, reinstall_ourselves
from vllm_mindspore.cli.doctor.surroundings import Surroundings

NAME = "files"
LOOKS_AT = "whether every file that was installed is there, in the size that it had"
FOLLOWS = ("packages",)

_LOOKED_AT = ("vllm", "mindspore", "torch", "transformers", "tokenizers", "numpy", "safetensors", OURSELVES)


def run(around: Surroundings) -> Iterator[Finding]:
    complete = 0
    for name in _LOOKED_AT:
        distribution = around.distribution(name)
        if distribution is None or distribution.files is None:
            continue
        missing, changed = _compare(distribution)
        told = f"{name} {distribution.version}"
        if missing:
            yield problem(
                f"{told} is not complete: {_first(missing)}", _again(around, name, distribution.version), {name}
            )
        elif changed:
            yield note(
                f"{told} was changed after it was installed: {_first(changed)}",
                _again(around, name, distribution.version),
            )
        else:
            complete += 1
    if complete:
        yield ok(f"{complete} packages are complete")


def _compare(distribution: Distribution) -> tuple[list[str], list[str]]:
    """Files that are missing or cut off, and files that have grown."""
    missing, changed = [], []
    for file in distribution.files or []:
        if file.suffix == ".pyc" or file.parts[:1] == ("..",):
            continue  # made later; scripts, which virtual environments rewrite
        size = _size(Path(str(distribution.locate_file(file))))
        if size is None:
            missing.append(f"{file} is missing")
        elif file.size is not None and size < file.size:
            missing.append(f"{file} has {size} bytes of {file.size}")
        elif file.size is not None and size > file.size:
            changed.append(f"{file} has {size} bytes and had {file.size}")
    return missing, changed


def _first(texts: list[str]) -> str:
    return texts[0] + (f" and {len(texts) - 1} more" if len(texts) > 1 else "")


def _again(around: Surroundings, name: str, version: str) -> Remedy:
    if name == OURSELVES:
        return reinstall_ourselves(around)
    return install(around, f"{name}=={version}", flags=["--force-reinstall", "--no-deps"])


def _size(file: Path) -> int | None:
    try:
        return file.stat().st_size
    except OSError:
        return None
