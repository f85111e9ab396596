"""Where this package was installed from, to be installed from there again: on PyPI its name is that of another project, its forerunner."""

from __future__ import annotations

import json
import shlex
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

NAME = "vllm-mindspore"
UNKNOWN = "PATH"
"""Stands for an origin that is not known, or no longer there."""
MEANING = "with the checkout or wheel that you installed from in place of PATH"


def origin(recorded: str | None) -> str | None:
    """The path or URL to install from; None if none is known, or nothing is there any more.

    Args:
        recorded: `direct_url.json`, which pip and uv write beside what does not come from an index.
    """
    if recorded is None:
        return None
    told: dict[str, Any] = json.loads(recorded)
    url, vcs = urlparse(told["url"]), told.get("vcs_info")
    path = unquote(url.path)
    if url.scheme == "file" and not Path(path).exists():
        return None
    folder = f"#subdirectory={told['subdirectory']}" if told.get("subdirectory") else ""
    if vcs:
        return f"{vcs['vcs']}+{told['url']}@{vcs['commit_id']}{folder}"
    return path if url.scheme == "file" else told["url"] + folder


def requirement(source: str, extra: str = "") -> str:
    """What pip takes for this package: a path or URL, with an extra."""
    extras = f"[{extra}]" if extra else ""
    return f"{NAME}{extras} @ {source}" if "://" in source else source + extras


def install_again(extra: str) -> str:
    """The command that installs this package again with an extra, for a sentence."""
    try:
        source = origin(distribution(NAME).read_text("direct_url.json"))
    except PackageNotFoundError:
        source = None
    command = f"pip install {shlex.quote(requirement(source or UNKNOWN, extra))}"
    return command if source else f"{command}, {MEANING}"
