"""What a check finds, and what a check is."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from packaging.utils import canonicalize_name

if TYPE_CHECKING:
    from vllm_mindspore.cli.doctor.surroundings import Surroundings


@dataclass(frozen=True)
class Remedy:
    """A shell command that mends a problem."""

    command: str
    by_hand: str = ""
    """Where a person has to run it ("in the shell that starts vLLM", "as root"); empty if a script can."""


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    status: str
    """ok, problem or note."""
    text: str
    remedy: Remedy | None = None
    about: frozenset[str] = frozenset()
    """Distributions that have to do with it: a problem follows from an earlier check's about the same."""
    follows: bool = False
    """From an earlier problem of the same check."""


class Check(Protocol):
    """A module of `vllm_mindspore.cli.checks`."""

    @property
    def NAME(self) -> str:
        """As `--only` and `--skip` take it."""

    @property
    def LOOKS_AT(self) -> str:
        """In words, for the report."""

    @property
    def FOLLOWS(self) -> tuple[str, ...]:
        """Earlier checks, a problem of which may be the cause of a problem of this one."""

    def run(self, around: Surroundings) -> Iterable[Finding]:
        """Look, and change nothing. No finding means that there was nothing to look at."""


_IMPORTED_AS = {"google": "protobuf", "PIL": "pillow", "yaml": "pyyaml", "cv2": "opencv-python-headless"}


def _distributions(names: Iterable[str]) -> frozenset[str]:
    """Of distributions or of top-level modules, under one name."""
    return frozenset(canonicalize_name(_IMPORTED_AS.get(name, name)) for name in names)


def ok(text: str) -> Finding:
    """All is well."""
    return Finding("ok", text)


def note(text: str, remedy: Remedy | None = None, about: Iterable[str] = ()) -> Finding:
    """Worth knowing; nothing is kept from running."""
    return Finding("note", text, remedy, _distributions(about))


def problem(text: str, remedy: Remedy, about: Iterable[str] = (), follows: bool = False) -> Finding:
    """Something will not run."""
    return Finding("problem", text, remedy, _distributions(about), follows)
