"""Whether Python keeps what it compiles of the packages: without, every start compiles thousands of modules, and takes twice as long."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from importlib.util import cache_from_source
from pathlib import Path

from vllm_mindspore.cli.checks.disk import is_writable, what_is_there
from vllm_mindspore.cli.doctor.finding import Finding, Remedy, note, ok
from vllm_mindspore.cli.doctor.surroundings import Surroundings

NAME = "bytecode"
LOOKS_AT = "whether Python keeps the bytecode of packages, or compiles them at every start"
FOLLOWS = ("packages",)

_VARIABLE = "PYTHONDONTWRITEBYTECODE"
_LOOKED_AT = ("vllm", "torch", "transformers", "mindspore")
"""The packages of which a start imports most."""


def run(around: Surroundings) -> Iterator[Finding]:
    packages = {name: folder for name in _LOOKED_AT if (folder := around.module_folder(name))}
    bare = {name: folder for name, folder in packages.items() if not _bytecode(folder).is_file()}
    if not bare:
        if packages:
            yield ok(f"Python keeps that of {', '.join(packages)}")
        return
    closed = [str(folder) for folder in bare.values() if not is_writable(what_is_there(_bytecode(folder).parent))]
    if around.environ.get(_VARIABLE):
        why, by_hand = f"{_VARIABLE} is set", ""
    elif closed:
        why, by_hand = f"{closed[0]} may not be written by this user", "as the owner of the environment"
    else:
        yield ok(f"The first start compiles {', '.join(bare)}, and takes longer than those after it")
        return
    folders = " ".join(shlex.quote(str(parent)) for parent in sorted({folder.parent for folder in bare.values()}))
    command = f"{shlex.quote(around.python)} -m compileall -q -j 0 {folders}"
    yield note(
        f"Every start compiles {', '.join(bare)} anew and takes twice as long, as there is no bytecode and {why}",
        Remedy(command, by_hand),
    )


def _bytecode(package: Path) -> Path:
    return Path(cache_from_source(str(package / "__init__.py")))
