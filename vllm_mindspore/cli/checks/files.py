"""Whether packages are complete: an interrupted or half-upgraded installation leaves files out."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import Distribution
from pathlib import Path

from vllm_mindspore.cli.doctor.finding import Finding, ok, problem
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
        wrong = list(_wrong(distribution))
        if not wrong:
            complete += 1
            continue
        again = [f"{name}=={distribution.version}"]
        remedy = (
            reinstall_ourselves(around)
            if name == OURSELVES
            else install(around, *again, flags=["--force-reinstall", "--no-deps"])
        )
        more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        yield problem(f"{name} {distribution.version} is not complete: {wrong[0]}{more}", remedy, {name})
    if complete:
        yield ok(f"{complete} packages are complete")


def _wrong(distribution: Distribution) -> Iterator[str]:
    for file in distribution.files or []:
        if file.suffix == ".pyc" or file.parts[:1] == ("..",):
            continue  # made later; scripts, which virtual environments rewrite
        size = _size(Path(str(distribution.locate_file(file))))
        if size is None:
            yield f"{file} is missing"
        elif file.size is not None and size != file.size:
            yield f"{file} has {size} bytes and not {file.size}"


def _size(file: Path) -> int | None:
    try:
        return file.stat().st_size
    except OSError:
        return None
