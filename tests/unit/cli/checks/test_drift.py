"""Whether vLLM is still what the adapter was written for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from vllm_mindspore.cli.checks import drift


def test_a_vllm_as_the_contract_has_it_is_fine(machine: Any) -> None:
    machine.install_row()
    machine.answer("libraries", {"vllm": {}, "drift": {"v0_9_1": [181, []]}})
    assert machine.is_fine(drift) == "vLLM is what adapter v0_9_1 was written for: 181 names are as they were"


def test_each_difference_is_named(machine: Any) -> None:
    machine.install_row()
    machine.answer("libraries", {"vllm": {}, "drift": {"v0_9_1": [181, ["vllm.config has no ModelConfig."]]}})
    (found,) = machine.problems(drift)
    assert found.text == "This vLLM is not the one that adapter v0_9_1 was written for: vllm.config has no ModelConfig."
    assert found.remedy.command.endswith("install --force-reinstall --no-deps vllm==0.9.1")


def test_a_release_that_was_tried_is_replaced_with_all_that_goes_with_the_row(machine: Any) -> None:
    machine.install_row(vllm="0.9.0")
    machine.answer("libraries", {"vllm": {}, "drift": {"v0_9_1": [181, ["vllm.config has no ModelConfig."]]}})
    around = replace(machine.around(), wanted=replace(machine.around().wanted, asked=False))
    (found,) = drift.run(around)
    assert found.remedy is not None
    assert found.remedy.command.endswith("install 'PATH[vllm091]'")


def test_many_differences_are_cut_short(machine: Any) -> None:
    machine.install_row()
    machine.answer("libraries", {"vllm": {}, "drift": {"v0_9_1": [181, [f"vllm.x has no a{i}." for i in range(25)]]}})
    assert len(machine.problems(drift)) == 10
    assert machine.look(drift)[-1].text.startswith("and 15 more differences")


def test_a_vllm_that_does_not_import_is_not_blamed_twice(machine: Any) -> None:
    machine.install_row()
    machine.answer("libraries", {"vllm": {"error": "ImportError", "at": "", "through": []}})
    assert [found.status for found in machine.look(drift)] == ["note"]
