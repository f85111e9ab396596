"""What the checks look at: one object, so that a test can hand them another machine."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import Distribution, distributions
from pathlib import Path

from packaging.utils import canonicalize_name

from vllm_mindspore.cli.doctor.probing import Probes
from vllm_mindspore.errors import UserError
from vllm_mindspore.matrix import Row, asked_engine, row_for_installed_vllm, rows

CHOICES_OF_DTYPE = ("auto", "bfloat16", "float16", "half", "float32", "float")
"""Of vLLM's `--dtype`."""


@dataclass(frozen=True)
class Wanted:
    """What the user asks about."""

    row: Row
    """Against which the environment is held."""
    asked: bool = False
    """Whether `--row` named the row; else it is the installed vLLM's."""
    obstacle: str = ""
    """Why no row fits the installed vLLM, in a sentence; `row` is then the newest."""
    model: str | None = None
    max_model_len: int | None = None
    dtype: str = "auto"


@dataclass(frozen=True)
class Surroundings:
    """A machine and an environment on it."""

    wanted: Wanted
    probes: Probes
    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    path: tuple[str, ...] = field(default_factory=lambda: tuple(folder for folder in sys.path if folder))
    """Where Python looks for packages."""
    root: Path = Path("/")
    """Of the file system."""
    here: Path = field(default_factory=Path.cwd)
    """Where the command was started."""
    python: str = sys.executable
    machine: str = field(default_factory=platform.machine)

    @property
    def row(self) -> Row:
        return self.wanted.row

    @property
    def requirements(self) -> Mapping[str, str]:
        """Distribution -> specifier, what the row needs on this machine beside vLLM."""
        return {**self.row.everywhere, **self.row.by_machine.get(self.machine, {})}

    @cached_property
    def installed(self) -> Mapping[str, tuple[Distribution, ...]]:
        """Canonical name -> the distributions of that name; the first is the one that Python takes."""
        found: dict[str, list[Distribution]] = {}
        for distribution in distributions(path=list(self.path)):
            name = distribution.metadata["Name"]
            if name and distribution.version:
                found.setdefault(canonicalize_name(name), []).append(distribution)
        return {name: tuple(copies) for name, copies in found.items()}

    def distribution(self, name: str) -> Distribution | None:
        """The installed distribution of that name."""
        copies = self.installed.get(canonicalize_name(name))
        return copies[0] if copies else None

    def version(self, name: str) -> str | None:
        """The installed version of a distribution."""
        found = self.distribution(name)
        return found.version if found else None

    def module_folder(self, name: str) -> Path | None:
        """Where a package lies, found without importing it."""
        folders = (Path(folder) / name for folder in self.path)
        return next((folder for folder in folders if (folder / "__init__.py").is_file()), None)

    @property
    def vllm_is_of_the_row(self) -> bool:
        """Whether vLLM is installed, in the release (and whatever build of it) that the row is about or tried with."""
        installed = self.version("vllm")
        if installed is None or self.wanted.obstacle:
            return False
        return not self.wanted.asked or installed.partition("+")[0] == self.row.vllm


def choose_row(extra: str | None) -> tuple[Row, str]:
    """The row to hold the environment against, and why none fits the installed vLLM, if so.

    Args:
        extra: of the row, None for the installed vLLM's.
    """
    if extra is not None:
        candidates = [row for row in rows() if row.extra == extra]
        return next((row for row in candidates if row.engine == asked_engine()), candidates[0]), ""
    try:
        return row_for_installed_vllm(), ""
    except UserError as error:
        newest = rows()[-1].extra
        return next(row for row in rows() if row.extra == newest), str(error)
