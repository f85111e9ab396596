"""Whether vLLM and what it stands on can be imported, what differs from an adapter's contract, and which platform vLLM activates.

Importing vLLM takes long, mostly for packages that are not vLLM's. They are imported once; then two forked processes go on, one with vLLM
as it is without us (it may be so different that our platform does not load), one with all plugins.
"""

from __future__ import annotations

import contextlib
import os
from importlib import import_module
from importlib.metadata import EntryPoint, distributions
from typing import Any, Callable

from vllm_mindspore.cli.doctor.probes import Tell, failure

PLATFORMS = "vllm.platform_plugins"
_LIBRARIES = ("numpy", "torch", "tokenizers", "transformers")
_SHARED = (
    "torchvision",
    "torch._dynamo",
    "transformers.models.auto.modeling_auto",
    "openai.types.chat",
    "fastapi",
    "ray",
    "scipy",
)
"""What the releases of vLLM import at once and takes long. It does not matter here whether it can be imported."""


def look(tell: Tell, adapters: list[str]) -> None:
    """Tell of each of `_LIBRARIES`, of `vllm`, of its `drift` from each adapter's contract, and of its `platform`."""
    for name in _LIBRARIES:
        tell(name, _import(name))
    for name in _SHARED:
        with contextlib.suppress(BaseException):
            import_module(name)
    _in_processes(tell, {"vllm": lambda: _vllm(tell, adapters), "platform": lambda: tell("platform", _platform())})


def _import(name: str) -> dict[str, Any]:
    try:
        import_module(name)
    except BaseException as error:
        return failure(error)
    return {}


def _in_processes(tell: Tell, works: dict[str, Callable[[], None]]) -> None:
    """Run each in a fork of this process; for one that dies, tell how it ended under its name."""
    names = {}
    for name, work in works.items():
        child = os.fork()
        if not child:
            try:
                work()
            except BaseException as error:
                tell(name, failure(error))
            os._exit(0)
        names[child] = name
    for _ in works:
        child, status = os.wait()
        if os.WIFSIGNALED(status):
            tell(names[child], {"error": f"killed by signal {os.WTERMSIG(status)}", "at": "", "through": ["vllm"]})


def _vllm(tell: Tell, adapters: list[str]) -> None:
    os.environ["VLLM_PLUGINS"] = ""
    found = _import("vllm")
    tell("vllm", found)
    if not found:
        from vllm_mindspore.compat.common.drift import contract, differences

        tell("drift", {adapter: [len(contract(adapter)), differences(contract(adapter))] for adapter in adapters})


def _platform() -> dict[str, Any]:
    """What each platform plugin answers, asked as vLLM asks it, and the platform that vLLM then really has."""
    plugins = [_plugin(entry, owner) for entry, owner in _entry_points()]
    try:
        from vllm import platforms
        from vllm.plugins import load_general_plugins

        load_general_plugins()  # where vLLM 0.6.6, which has no plugins for platforms, gets ours
        kind = type(platforms.current_platform)
    except BaseException as error:
        return {"plugins": plugins, "own": [], **failure(error)}
    own = [name for name, offer in getattr(platforms, "builtin_platform_plugins", {}).items() if _offered(offer)]
    return {"plugins": plugins, "own": own, "active": f"{kind.__module__}.{kind.__qualname__}"}


def _entry_points() -> list[tuple[EntryPoint, str]]:
    found: dict[str, tuple[EntryPoint, str]] = {}
    for distribution in distributions():
        for entry in distribution.entry_points:
            if entry.group == PLATFORMS:
                found.setdefault(entry.name, (entry, str(distribution.metadata["Name"])))
    return list(found.values())


def _plugin(entry: EntryPoint, owner: str) -> dict[str, Any]:
    about = {"name": entry.name, "value": entry.value, "distribution": owner}
    allowed = os.environ.get("VLLM_PLUGINS")
    if allowed is not None and entry.name not in allowed.split(","):
        return {**about, "kept_out": True}
    try:
        return {**about, "offers": entry.load()()}
    except BaseException as error:
        return {**about, **failure(error)}


def _offered(offer: Callable[[], str | None]) -> bool:
    try:
        return offer() is not None
    except Exception:  # as vLLM does
        return False
