"""Import MindSpore in a process in which vLLM is already loaded.

MindSpore's generated protobuf modules need protobuf's pure-Python implementation, which MindSpore asks for by setting
`PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION` before its first import of protobuf. Where something else (OpenTelemetry, Ray) has already loaded
protobuf's C implementation, `import mindspore` fails or kills the interpreter at exit. Both implementations live in one process
without trouble as long as each importer keeps the modules that it was built with.
"""

from __future__ import annotations

import gc
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

_VARIABLE = "PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION"

mindspore_turn = threading.RLock()
"""Held by the thread that makes, compiles or runs a network of MindSpore: what it builds, and what a capture notes, is the process's."""


def import_mindspore() -> ModuleType:
    """Import MindSpore, whatever was imported before, and return it. Idempotent.

    The `google.protobuf` modules that are loaded already are set aside during the import and put back
    afterwards, so their users keep them; MindSpore keeps the pure-Python ones it imported.
    """
    if "mindspore" in sys.modules:
        return sys.modules["mindspore"]
    others = {
        name: sys.modules.pop(name)
        for name in list(sys.modules)
        if name == "google.protobuf" or name.startswith("google.protobuf.")
    }
    before = os.environ.get(_VARIABLE)
    os.environ[_VARIABLE] = "python"
    try:
        with no_garbage_collection():
            import mindspore
    finally:
        if others:
            for name in [n for n in sys.modules if n == "google.protobuf" or n.startswith("google.protobuf.")]:
                del sys.modules[name]
            sys.modules.update(others)
            google = sys.modules.get("google")
            if google is not None and "google.protobuf" in others:
                google.protobuf = others["google.protobuf"]  # type: ignore[attr-defined]
        if before is None:
            del os.environ[_VARIABLE]
        else:
            os.environ[_VARIABLE] = before
    return mindspore


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """For what makes many objects that stay, in a process that holds many already.

    Whoever asks for a collection meanwhile, as MindSpore does before it compiles, gets one among the new objects only: with vLLM and torch
    loaded one among all takes a second.
    """
    enabled, frozen = gc.isenabled(), gc.get_freeze_count()
    gc.disable()
    if not frozen:  # what somebody else has frozen stays so, and nothing else does
        gc.freeze()
    try:
        yield
    finally:
        if not frozen:
            gc.unfreeze()
        if enabled:
            gc.enable()
