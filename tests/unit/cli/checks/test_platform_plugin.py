"""Which platform vLLM activates, by what the probe saw."""

from __future__ import annotations

from typing import Any

import pytest

from vllm_mindspore.cli.checks import platform_plugin

OURS = "vllm_mindspore.compat.v0_9_1.platform.MindSporePlatform"
PLUGIN = {
    "name": "mindspore",
    "value": "vllm_mindspore.plugin:platform",
    "distribution": "vllm-mindspore",
    "offers": OURS,
}
OTHER = {"name": "other", "value": "other:platform", "distribution": "other-platform"}
RAISED = {"error": "ImportError: libascend_hal.so", "at": "other:7", "through": ["other"]}


@pytest.fixture
def vllm(machine: Any) -> Any:
    machine.install_row()
    machine.answer(
        "libraries", {"platform": {"plugins": [PLUGIN], "general": ["vllm-mindspore"], "own": [], "active": OURS}}
    )
    return machine


def test_our_platform_is_fine_and_why(vllm: Any) -> None:
    assert vllm.is_fine(platform_plugin) == f"vLLM activates {OURS}: plugin mindspore offers {OURS}"


def test_a_variable_that_keeps_the_plugin_out_is_named(vllm: Any) -> None:
    vllm.environ = {"VLLM_PLUGINS": "other"}
    (found,) = vllm.problems(platform_plugin)
    assert found.text == "VLLM_PLUGINS='other' keeps vLLM from loading the plugin mindspore"
    assert found.remedy.command == "unset VLLM_PLUGINS"


def test_an_exception_that_vllm_swallows_is_shown(vllm: Any) -> None:
    vllm.answer(
        "libraries",
        {
            "platform": {
                "plugins": [PLUGIN, {**OTHER, **RAISED}],
                "general": ["vllm-mindspore"],
                "own": [],
                "active": OURS,
            }
        },
    )
    found = vllm.look(platform_plugin)
    assert [one.status for one in found] == ["note", "ok"]
    assert (
        "Plugin other of other-platform raises ImportError: libascend_hal.so, which vLLM swallows (other:7)"
        in found[0].text
    )


def test_our_own_exception_is_a_problem(vllm: Any) -> None:
    ours = {key: value for key, value in PLUGIN.items() if key != "offers"}
    found = {
        "plugins": [{**ours, **RAISED}],
        "general": ["vllm-mindspore"],
        "own": ["cpu"],
        "active": "vllm.platforms.cpu.CpuPlatform",
    }
    vllm.answer("libraries", {"platform": found})
    first, second = vllm.problems(platform_plugin)
    assert "Plugin mindspore of vllm-mindspore raises ImportError" in first.text
    assert "vLLM activates vllm.platforms.cpu.CpuPlatform instead" in second.text
    assert second.text.endswith("of its own, vLLM offers cpu")


def test_two_platforms_are_both_named(vllm: Any) -> None:
    error = {
        "error": "RuntimeError: Only one platform plugin can be activated",
        "at": "vllm/platforms:1",
        "through": ["vllm"],
    }
    offered = {**OTHER, "offers": "other.Platform"}
    vllm.answer(
        "libraries", {"platform": {"plugins": [PLUGIN, offered], "general": ["vllm-mindspore"], "own": [], **error}}
    )
    (found,) = vllm.problems(platform_plugin)
    assert f"(plugin mindspore offers {OURS}; plugin other offers other.Platform)" in found.text
    assert found.remedy.command == "/env/bin/python -m pip uninstall --yes other-platform"


def test_a_missing_entry_point_is_named(vllm: Any) -> None:
    active = "vllm.platforms.interface.UnspecifiedPlatform"
    vllm.answer("libraries", {"platform": {"plugins": [], "general": ["vllm-mindspore"], "own": [], "active": active}})
    assert vllm.problems(platform_plugin)[0].text == "vLLM finds no plugin of vllm-mindspore in vllm.platform_plugins"


def test_a_missing_general_plugin_is_named(vllm: Any) -> None:
    vllm.answer("libraries", {"platform": {"plugins": [PLUGIN], "general": ["other"], "own": [], "active": OURS}})
    (found,) = vllm.problems(platform_plugin)
    assert found.text == "vLLM finds no plugin of vllm-mindspore in vllm.general_plugins"
    assert "--force-reinstall" in found.remedy.command


def test_a_crash_is_told(vllm: Any) -> None:
    vllm.answer("libraries", {"platform": {"error": "killed by signal 11", "at": "", "through": ["vllm"]}})
    (found,) = vllm.problems(platform_plugin)
    assert found.text == "vLLM ends Python as it looks for its platform: killed by signal 11"
