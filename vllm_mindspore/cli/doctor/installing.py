"""The exact command that installs something into the environment that is looked at."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Iterable
from dataclasses import replace

from vllm_mindspore.cli.doctor.finding import Remedy
from vllm_mindspore.cli.doctor.surroundings import Surroundings
from vllm_mindspore.origin import MEANING, NAME, UNKNOWN, origin, requirement

OURSELVES = NAME
NO_WHEEL = "VLLM_TARGET_DEVICE=empty"
"""What vLLM's source distribution needs where vLLM has no wheel, so that it compiles nothing of its own."""


def install(around: Surroundings, *requirements: str, flags: Iterable[str] = ()) -> Remedy:
    """`pip install`, or uv's where there is no pip, into the interpreter that is looked at.

    Args:
        around: the environment.
        requirements: as pip takes them.
        flags: of pip: `--force-reinstall`, `--no-deps`.
    """
    given = list(flags)
    if around.version("pip") or not _has_uv(around):
        command = [around.python, "-m", "pip", "install"]
    else:
        command = ["uv", "pip", "install", "--python", around.python]
        given = ["--reinstall" if flag == "--force-reinstall" else flag for flag in flags]
    words = shlex.join([*command, *given, *requirements])
    if any(one.startswith("vllm==") or "[" in one for one in requirements):
        words = _beside_vllm(around, words)
    if not around.version("pip") and not _has_uv(around):
        words = f"{shlex.quote(around.python)} -m ensurepip && {words}"
    return Remedy(words)


def _beside_vllm(around: Surroundings, words: str) -> str:
    return words if around.machine == "x86_64" else f"{NO_WHEEL} {words}"


def _has_uv(around: Surroundings) -> bool:
    return shutil.which("uv", path=around.environ.get("PATH", "")) is not None


def uninstall(around: Surroundings, *names: str) -> Remedy:
    """Remove distributions from the interpreter that is looked at."""
    if around.version("pip") or not _has_uv(around):
        command = [around.python, "-m", "pip", "uninstall", "--yes", *names]
    else:
        command = ["uv", "pip", "uninstall", "--python", around.python, *names]
    return Remedy(shlex.join(command))


def reinstall_ourselves(around: Surroundings) -> Remedy:
    """Build and install this package again, with what it needs left as it is."""
    return _install_ourselves(around, flags=["--force-reinstall", "--no-deps"])


def install_row(around: Surroundings) -> Remedy:
    """Install this package with the vLLM of the row and what goes with it."""
    return _install_ourselves(around, around.row.extra)


def vllm_of_the_row(around: Surroundings) -> Remedy:
    """Put the row's vLLM in the place of the installed one: of another release, with the torch and the rest that go with it."""
    installed = (around.version("vllm") or "").partition("+")[0]
    if installed == around.row.vllm:  # which pip would leave as it is
        return install(around, f"vllm=={around.row.vllm}", flags=["--force-reinstall", "--no-deps"])
    return install_row(around)


def new_environment(around: Surroundings) -> Remedy:
    """Make an environment with a Python that suits every row, and install this package with the row's vLLM into it."""
    source = _source(around)
    wanted = shlex.quote(requirement(source or UNKNOWN, around.row.extra))
    if _has_uv(around):
        make, fill = "uv venv --python 3.11 .venv", f"uv pip install --python .venv/bin/python {wanted}"
    else:
        make, fill = "python3.11 -m venv .venv", f".venv/bin/python -m pip install {wanted}"
    return Remedy(f"{make} && {_beside_vllm(around, fill)}", "" if source else MEANING)


def _install_ourselves(around: Surroundings, extra: str = "", flags: Iterable[str] = ()) -> Remedy:
    source = _source(around)
    remedy = install(around, requirement(source or UNKNOWN, extra), flags=flags)
    return remedy if source else replace(remedy, by_hand=MEANING)


def _source(around: Surroundings) -> str | None:
    found = around.distribution(OURSELVES)
    return origin(found.read_text("direct_url.json")) if found else None
