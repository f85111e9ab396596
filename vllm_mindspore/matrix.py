"""`version_matrix.toml`: which vLLM releases there are adapters for, and what goes with each.

Imported in the middle of `import vllm`, so it needs little and is quick.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from vllm_mindspore.errors import UserError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_NAME = "version_matrix.toml"


@dataclass(frozen=True)
class Row:
    """A vLLM release and one of its engines."""

    vllm: str
    engine: str
    """V0 or V1."""
    extra: str
    """Of this package: `pip install vllm-mindspore[extra]` installs what goes with the row."""
    adapter: str
    """Name of its package in `vllm_mindspore.compat`."""
    python: str
    verified: str
    """cpu: run by the project's tests; declared: nobody here ran it."""
    models: tuple[str, ...]
    requirements: Mapping[str, str]
    """Distribution -> specifier, beside vLLM itself."""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@cache
def rows() -> tuple[Row, ...]:
    """The table."""
    here = Path(__file__).parent
    # Installed, it lies beside this file; in a checkout, which an editable install runs from, one level up.
    file = next(folder / _NAME for folder in (here, here.parent) if (folder / _NAME).is_file())
    table = tomllib.loads(file.read_text(encoding="utf-8"))
    return tuple(Row(**{**row, "models": tuple(row["models"])}) for row in table["row"])


def row_for_installed_vllm() -> Row:
    """The row of the installed vLLM.

    Raises:
        UserError: vLLM is missing, or a release that we have no adapter for.
    """
    known = ", ".join(row.vllm for row in rows())
    try:
        # "0.9.1+cpu" and the like are builds of the same release.
        installed = version("vllm").partition("+")[0]
    except PackageNotFoundError:
        raise UserError(
            f"vLLM is not installed: install one of {known}, for instance with pip install 'vllm-mindspore[{rows()[-1].extra}]'."
        ) from None
    for row in rows():
        if row.vllm == installed:
            return row
    raise UserError(f"vLLM {installed} is installed, and vllm-mindspore has no adapter for it: install one of {known}.")
