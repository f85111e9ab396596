"""Which files of a checkpoint hold its weights. Imports nothing heavy: `check-env` asks as the loader does."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatch

FORMS = ("model.safetensors", "pytorch_model.bin")
"""The file of a checkpoint in one piece, in the order in which they are looked for."""
PATTERNS = {"model.safetensors": "*.safetensors", "pytorch_model.bin": "pytorch_model*.bin"}
"""What the files may be called if there is neither."""
NOT_WEIGHTS = ("consolidated*", "adapter*")
"""Among those: the same weights under other names, and those of adapters."""


def index_of(form: str) -> str:
    """The file that lists the shards, where there are several."""
    return f"{form}.index.json"


def without_index(form: str, names: Iterable[str]) -> list[str]:
    """The files of a form, if no index says which they are."""
    found = sorted(name for name in names if fnmatch(name, PATTERNS[form]))
    return [form] if form in found else [name for name in found if not any(fnmatch(name, p) for p in NOT_WEIGHTS)]
