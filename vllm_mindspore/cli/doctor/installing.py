"""The exact command that installs something into the environment that is looked at."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import unquote, urlparse

from vllm_mindspore.cli.doctor.finding import Remedy
from vllm_mindspore.cli.doctor.surroundings import Surroundings

OURSELVES = "vllm-mindspore"
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
    words = " ".join(shlex.quote(word) for word in [*command, *given, *requirements])
    brings_vllm = any(requirement.startswith("vllm==") or requirement.endswith("]") for requirement in requirements)
    if brings_vllm and around.machine != "x86_64":
        words = f"{NO_WHEEL} {words}"
    if not around.version("pip") and not _has_uv(around):
        words = f"{shlex.quote(around.python)} -m ensurepip && {words}"
    return Remedy(words)


def _has_uv(around: Surroundings) -> bool:
    return shutil.which("uv", path=around.environ.get("PATH", "")) is not None


def uninstall(around: Surroundings, *names: str) -> Remedy:
    """Remove distributions from the interpreter that is looked at."""
    if around.version("pip") or not _has_uv(around):
        command = [around.python, "-m", "pip", "uninstall", "--yes", *names]
    else:
        command = ["uv", "pip", "uninstall", "--python", around.python, *names]
    return Remedy(" ".join(shlex.quote(word) for word in command))


def reinstall_ourselves(around: Surroundings) -> Remedy:
    """Build and install this package again, with what it needs left as it is."""
    return install(around, ourselves(around), flags=["--force-reinstall", "--no-deps"])


def install_row(around: Surroundings) -> Remedy:
    """Install this package with the vLLM of the row and what goes with it."""
    return install(around, f"{ourselves(around)}[{around.row.extra}]")


def ourselves(around: Surroundings) -> str:
    """This package as pip finds it: the checkout or wheel that it was installed from, if that is still there."""
    found = around.distribution(OURSELVES)
    text = found.read_text("direct_url.json") if found else None
    url = urlparse(json.loads(text)["url"]) if text else None
    if url is not None and url.scheme == "file" and Path(unquote(url.path)).exists():
        return unquote(url.path)
    return OURSELVES
