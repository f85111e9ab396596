"""Which platform vLLM really activates, and why. vLLM swallows what a platform plugin raises and goes on without it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from vllm_mindspore.cli.checks.imports import libraries, longer
from vllm_mindspore.cli.doctor.finding import Finding, Remedy, note, ok, problem
from vllm_mindspore.cli.doctor.installing import OURSELVES, reinstall_ourselves, uninstall
from vllm_mindspore.cli.doctor.probes.libraries import GENERAL, PLATFORMS
from vllm_mindspore.cli.doctor.surroundings import Surroundings

NAME = "platform-plugin"
LOOKS_AT = "which platform vLLM activates, and what its platform plugins raise"
FOLLOWS = ("interpreter", "rivals", "packages", "files", "memory", "disk", "limits", "imports", "drift")

_PLUGIN = "mindspore"


def run(around: Surroundings) -> Iterator[Finding]:
    if not around.vllm_is_of_the_row:
        return  # `packages` says so
    allowed = around.environ.get("VLLM_PLUGINS")
    if allowed is not None and _PLUGIN not in allowed.split(","):
        unset = Remedy("unset VLLM_PLUGINS", "in the shell that starts vLLM")
        yield problem(f"VLLM_PLUGINS={allowed!r} keeps vLLM from loading the plugin {_PLUGIN}", unset, {OURSELVES})
        return
    answers = libraries(around)
    found = answers.parts.get("platform")
    if found is None and answers.timed_out:
        yield problem(f"vLLM gives {answers.error}: it hangs, or disk and processor are busy", longer(around), {"vllm"})
        return
    if found is None or "plugins" not in found:
        error = answers.error if found is None else found["error"]
        yield problem(f"vLLM ends Python as it looks for its platform: {error}", reinstall_ourselves(around), {"vllm"})
        return
    yield from _missing(around, found)
    yield from _raised(around, found["plugins"])
    yield _verdict(around, found)


def _missing(around: Surroundings, found: dict[str, Any]) -> Iterator[Finding]:
    """Which of our entry points vLLM does not find: without the second, it knows nothing of our networks."""
    owners = {PLATFORMS: [plugin["distribution"] for plugin in found["plugins"]], GENERAL: found["general"]}
    for group, names in owners.items():
        if OURSELVES not in names:
            yield problem(f"vLLM finds no plugin of {OURSELVES} in {group}", reinstall_ourselves(around), {OURSELVES})


def _raised(around: Surroundings, plugins: list[dict[str, Any]]) -> Iterator[Finding]:
    """What vLLM does not show."""
    for plugin in plugins:
        if "error" in plugin:
            text = f"Plugin {plugin['name']} of {plugin['distribution']} raises {plugin['error']}, which vLLM swallows ({plugin['at']})"
            about = {plugin["distribution"], *plugin["through"]}
            if plugin["distribution"] == OURSELVES:
                yield problem(text, reinstall_ourselves(around), about)
            else:
                yield note(text, uninstall(around, plugin["distribution"]), about)


def _verdict(around: Surroundings, found: dict[str, Any]) -> Finding:
    offers = {plugin["name"]: plugin["offers"] for plugin in found["plugins"] if plugin.get("offers")}
    others = [plugin for plugin in found["plugins"] if plugin.get("offers") and plugin["distribution"] != OURSELVES]
    why = "; ".join(f"plugin {name} offers {offer}" for name, offer in offers.items()) or "no plugin offers one"
    own = f"; of its own, vLLM offers {', '.join(found['own'])}" if found["own"] else ""
    remedy = (
        uninstall(around, *(plugin["distribution"] for plugin in others)) if others else reinstall_ourselves(around)
    )
    if "error" in found:
        about = {*found["through"], *(plugin["distribution"] for plugin in others)}
        return problem(f"vLLM has no platform to run on: {found['error']} ({why})", remedy, about)
    if not found["active"].startswith("vllm_mindspore."):
        about = {"vllm", OURSELVES, *(plugin["distribution"] for plugin in others)}
        return problem(f"vLLM activates {found['active']} instead of this plugin's platform: {why}{own}", remedy, about)
    return ok(f"vLLM activates {found['active']}: {why}{own}")
