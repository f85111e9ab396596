"""Whether vLLM and what it stands on can be imported, what differs from an adapter's contract, and which platform vLLM activates.

vLLM is imported with all plugins, in a fork, as it may end the process. Only if our platform is not what comes of it, a second fork looks at
vLLM as it is without us: it may be so different that our platform does not load. What takes long to import and is not vLLM's is imported
before, once for both.
"""

from __future__ import annotations

import os
from functools import partial
from importlib import import_module
from importlib.metadata import EntryPoint, distributions
from typing import Any, Callable

from vllm_mindspore.cli.doctor.probes import Tell, failure

PLATFORMS = "vllm.platform_plugins"
GENERAL = "vllm.general_plugins"
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
"""What all releases of vLLM import. Whether it can be imported does not matter here: vLLM's own import will tell."""


def look(tell: Tell, adapters: list[str]) -> None:
    """Tell of each of `_LIBRARIES`, of `vllm`, of its `drift` from each adapter's contract, and of its `platform`."""
    for name in _LIBRARIES:
        tell(name, _import(name))
    for name in _SHARED:
        _import(name)
    for part, work in (("platform", _with_plugins), ("vllm", _without_plugins)):
        code = _fork(partial(work, tell, adapters))
        if code == 0:
            return
        if code < 0:
            tell(part, {"error": f"killed by signal {-code}", "at": "", "through": ["vllm"]})


def _import(name: str) -> dict[str, Any]:
    try:
        import_module(name)
    except BaseException as error:
        return failure(error)
    return {}


def _fork(work: Callable[[], bool]) -> int:
    """Run it in a fork of this process: 0 if it is done, 1 if there is more to look at, less than 0 for the signal that killed it."""
    child = os.fork()
    if not child:
        done = False
        try:
            done = work()
        finally:
            os._exit(0 if done else 1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _with_plugins(tell: Tell, adapters: list[str]) -> bool:
    found = _platform()
    tell("platform", found)
    if not found.get("active", "").startswith("vllm_mindspore."):
        return False
    _tell_of_vllm(tell, adapters)
    return True


def _without_plugins(tell: Tell, adapters: list[str]) -> bool:
    os.environ["VLLM_PLUGINS"] = ""
    _tell_of_vllm(tell, adapters)
    return True


def _tell_of_vllm(tell: Tell, adapters: list[str]) -> None:
    found = _import("vllm")
    tell("vllm", found)
    if not found:
        from vllm_mindspore.compat.common.drift import contract, differences

        tell("drift", {adapter: [len(contract(adapter)), differences(contract(adapter))] for adapter in adapters})


def _platform() -> dict[str, Any]:
    """What each platform plugin answers, asked as vLLM asks it, and the platform that vLLM then really has."""
    plugins = [_plugin(entry, owner) for entry, owner in _entry_points(PLATFORMS)]
    found: dict[str, Any] = {"plugins": plugins, "general": [owner for _, owner in _entry_points(GENERAL)]}
    try:
        from vllm import platforms
        from vllm.plugins import load_general_plugins

        load_general_plugins()  # where vLLM 0.6.6, which has no plugins for platforms, gets ours
        kind = type(platforms.current_platform)
    except BaseException as error:
        return {**found, "own": [], **failure(error)}
    own = [name for name, offer in getattr(platforms, "builtin_platform_plugins", {}).items() if _offered(offer)]
    return {**found, "own": own, "active": f"{kind.__module__}.{kind.__qualname__}"}


def _entry_points(group: str) -> list[tuple[EntryPoint, str]]:
    found: dict[str, tuple[EntryPoint, str]] = {}
    for distribution in distributions():
        for entry in distribution.entry_points:
            if entry.group == group:
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
