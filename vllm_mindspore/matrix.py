"""`version_matrix.toml`: which vLLM releases there are adapters for, what goes with each, and how that was verified.

Imported in the middle of `import vllm`, so it needs little and is quick.
"""

from __future__ import annotations

import logging
import os
import platform
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from packaging.version import Version

from vllm_mindspore.errors import UserError
from vllm_mindspore.origin import install_again

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

logger = logging.getLogger(__name__)

TRY_UNKNOWN = "VLLM_MINDSPORE_TRY_UNKNOWN_VLLM"
"""Environment variable: 1 runs a vLLM that has no row with the adapter for the nearest release."""
_NAME = "version_matrix.toml"

VERIFIED = ("cpu", "tried", "contract", "declared")
"""How a pair may have been verified, the strongest first; the head of the table says what each means."""
MACHINES = ("x86_64", "aarch64")


@dataclass(frozen=True)
class Pair:
    """A vLLM release with a MindSpore on a device."""

    mindspore: tuple[str, ...]
    device: str
    """cpu, or a key of `devices`."""
    verified: str
    """One of `VERIFIED`."""
    python: str = ""
    """Which one it was verified with."""
    cann: tuple[str, ...] = ()
    """Releases of CANN, where the device needs it."""
    shown: str = ""
    """What passed, or where the pair comes from."""


@dataclass(frozen=True)
class Row:
    """A vLLM release and one of its engines."""

    vllm: str
    engine: str
    """V0 or V1."""
    extra: str
    """Of this package: `pip install '.[extra]'` installs what goes with the row."""
    adapter: str
    """Name of its package in `vllm_mindspore.compat`."""
    max_num_seqs: int
    """Sequences in one step, where the user does not say: vLLM's own default."""
    python: str
    models: tuple[str, ...]
    everywhere: Mapping[str, str]
    """Distribution -> specifier, beside vLLM itself."""
    by_machine: Mapping[str, Mapping[str, str]]
    """What one of `MACHINES` needs beside that."""
    pairs: tuple[Pair, ...]

    @property
    def requirements(self) -> Mapping[str, str]:
        """Distribution -> specifier, beside vLLM itself, on this machine."""
        return {**self.everywhere, **self.by_machine.get(platform.machine(), {})}

    @property
    def torch(self) -> str:
        """Specifier of the torch that this vLLM was made for: its x86-64 wheel asks for it, beside its sdist we do."""
        return self.by_machine["aarch64"]["torch"]

    @property
    def verified(self) -> str:
        """The strongest of what its pairs have."""
        return min((pair.verified for pair in self.pairs), key=VERIFIED.index)

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "requirements": dict(self.requirements), "verified": self.verified}


def _file() -> Path:
    # Installed, it lies beside this file; in a checkout, which an editable install runs from, one level up.
    beside, above = (folder / _NAME for folder in Path(__file__).parents[:2])
    return above if above.is_file() and not beside.is_file() else beside


def _damaged(why: object) -> UserError:
    return UserError(f"{_file()} is damaged ({why}): install vllm-mindspore again.")


@cache
def _table() -> Mapping[str, Any]:
    try:
        return tomllib.loads(_file().read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{_file()} is missing: install vllm-mindspore again.") from None
    except (OSError, ValueError) as error:
        raise _damaged(error) from None


@cache
def rows() -> tuple[Row, ...]:
    """The table, release after release, the default engine of each first.

    Raises:
        UserError: it is missing or damaged.
    """
    try:
        return tuple(_row(release, engine) for release in _table()["release"] for engine in release["engine"])
    except KeyError as error:
        raise _damaged(f"it has no {error}") from None


def _row(release: Mapping[str, Any], engine: Mapping[str, Any]) -> Row:
    return Row(
        vllm=release["vllm"],
        engine=engine["engine"],
        extra=release["extra"],
        adapter=engine["adapter"],
        max_num_seqs=engine["max_num_seqs"],
        python=release["python"],
        models=tuple(engine["models"]),
        everywhere=release["requirements"],
        by_machine={machine: release[machine] for machine in MACHINES if machine in release},
        pairs=tuple(_pair(pair) for pair in release["pair"]),
    )


def _pair(written: Mapping[str, Any]) -> Pair:
    values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in written.items()}
    return Pair(**values)


def devices() -> Mapping[str, list[str]]:
    """The Atlas products of each kind of Ascend processor."""
    return _table()["devices"]


def toolkits() -> Mapping[str, list[str]]:
    """MindSpore release -> the CANN toolkits that its wheel takes."""
    return _table()["toolkits"]


def asked_engine() -> str | None:
    """The engine that `VLLM_USE_V1`, vLLM's own variable, asks for; None leaves the choice to us."""
    choice = os.environ.get("VLLM_USE_V1", "")
    return {"0": "V0", "1": "V1"}.get(choice)


def rows_for_installed_vllm() -> tuple[Row, ...]:
    """The rows of the installed vLLM, the default engine's first.

    Raises:
        UserError: vLLM is missing, or a release that we have no adapter for and were not told to try.
    """
    known = ", ".join(dict.fromkeys(row.vllm for row in rows()))
    try:
        # "0.9.1+cpu" and the like are builds of the same release.
        installed = version("vllm").partition("+")[0]
    except PackageNotFoundError:
        raise UserError(
            f"vLLM is not installed: install one of {known}, for instance with {install_again(rows()[-1].extra)}."
        ) from None
    exact = tuple(row for row in rows() if row.vllm == installed)
    if exact:
        return exact
    if os.environ.get(TRY_UNKNOWN) == "1":
        nearest = nearest_release(installed)
        logger.warning(
            "vLLM %s is installed, which vllm-mindspore was never run with: trying the adapter for %s, as %s=1 asks.",
            installed,
            nearest,
            TRY_UNKNOWN,
        )
        return tuple(row for row in rows() if row.vllm == nearest)
    raise UserError(
        f"vLLM {installed} is installed, and vllm-mindspore has no adapter for it: install one of {known}, "
        f"or set {TRY_UNKNOWN}=1 to try the adapter for the nearest release."
    )


def row_for_installed_vllm(engine: str | None = None) -> Row:
    """The row of the installed vLLM and of an engine: the one given, else the one asked for, else the default.

    An engine that there is no row for gives the default one's; the platform refuses it once a model is to be run.

    Raises:
        UserError: see `rows_for_installed_vllm`.
    """
    candidates = rows_for_installed_vllm()
    wanted = engine or asked_engine()
    return next((row for row in candidates if row.engine == wanted), candidates[0])


def nearest_release(installed: str) -> str:
    """The known release whose adapter is tried with an unknown one.

    The nearest of the same minor release; else the newest that is older; else the oldest.
    """
    wanted = Version(installed)
    known = sorted({row.vllm for row in rows()}, key=Version)
    same = [release for release in known if Version(release).release[:2] == wanted.release[:2]]
    if same:
        return min(same, key=lambda release: abs(Version(release).micro - wanted.micro))
    older = [release for release in known if Version(release) < wanted]
    return (older or known[:1])[-1]
