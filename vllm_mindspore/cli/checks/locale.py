"""Whether texts are UTF-8: prompts, templates and configuration files are."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from locale import getpreferredencoding

from vllm_mindspore.cli.doctor.finding import Finding, Remedy, ok, problem
from vllm_mindspore.cli.doctor.surroundings import Surroundings

NAME = "locale"
LOOKS_AT = "the encoding of files and of file names"
FOLLOWS = ()

_UTF8 = ("utf-8", "utf8")


def run(around: Surroundings) -> Iterator[Finding]:
    for what, encoding in (("files", encoding_of_files()), ("file names", sys.getfilesystemencoding())):
        if encoding.lower() not in _UTF8:
            remedy = Remedy("export LANG=C.UTF-8 LC_ALL=C.UTF-8", "in the shell that starts vLLM")
            yield problem(f"Python reads {what} as {encoding}: chat templates and prompts are UTF-8", remedy)
            return
    yield ok("Files and their names are UTF-8")


def encoding_of_files() -> str:
    """What `open` takes by default."""
    return getpreferredencoding(False)
