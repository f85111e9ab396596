"""The ledger of patches: an attribute of vLLM that we set or wrap stands in its adapter's `patches.py`, in the tuple `PATCHES`.

An adapter without that file patches nothing; one that has it imports vLLM only when it patches, so that the ledgers of all can be read. `tests/conformance/test_patches.py` compares every module and class of vLLM before and after our
code ran and fails for a change that is not listed, and for an entry that changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec


@dataclass(frozen=True)
class Patch:
    """One attribute of vLLM that is not as vLLM made it."""

    attribute: str
    """Where it lies: "vllm.platforms.current_platform.__class__"."""
    what: str
    """What it is set to."""
    why: str
    """What does not work without it."""
    since: str
    """The first release of this package that has it."""
    removed_by: str
    """What makes it unnecessary."""


def patches(adapter: str) -> tuple[Patch, ...]:
    """The ledger of an adapter, by the name that the matrix gives it."""
    name = f"vllm_mindspore.compat.{adapter}.patches"
    if find_spec(name) is None:
        return ()
    listed: tuple[Patch, ...] = import_module(name).PATCHES
    return listed
