"""Installed packages against the matrix and against each other."""

from __future__ import annotations

import sys
from typing import Any

from vllm_mindspore.cli.checks import packages
from vllm_mindspore.cli.doctor.surroundings import Surroundings, Wanted, choose_row


def test_the_environment_of_this_test_is_right(machine: Any) -> None:
    """As its own packages see it: pip check agrees, but for the demo's llama.cpp."""
    around = Surroundings(Wanted(choose_row(None)[0]), machine.probes)
    assert [found.text for found in packages.run(around) if found.status != "ok"] == []
    assert around.python == sys.executable


def test_all_conflicts_are_named_at_once_with_one_command(machine: Any) -> None:
    machine.install_row(transformers="5.1.0", numpy="2.2.0")
    found = machine.problems(packages)
    assert [one.text for one in found] == [
        "numpy 2.2.0, vLLM 0.9.1 needs <2",
        "transformers 5.1.0, vLLM 0.9.1 needs <4.54,>=4.51.1",
    ]
    assert {one.remedy.command for one in found} == {
        "/env/bin/python -m pip install 'numpy<2' 'transformers<4.54,>=4.51.1'"
    }


def test_a_mindspore_that_was_tried_is_no_conflict_but_told(machine: Any) -> None:
    machine.install_row(mindspore="2.9.0")
    assert [(one.status, one.text) for one in machine.look(packages) if one.status != "ok"] == [
        (
            "note",
            "MindSpore 2.9.0 with vLLM 0.9.1: it was tried once, on a CPU with Python 3.11 (kernels, networks, loader; generation on V1 "
            "and V0). The whole test suite runs with MindSpore 2.7.1.",
        )
    ]


def test_a_mindspore_that_only_part_of_the_tests_run_with_is_told(machine: Any) -> None:
    machine.install_row(mindspore="2.7.0")
    (told,) = [one for one in machine.look(packages) if one.status != "ok"]
    assert told.status == "note"
    assert told.text.startswith("MindSpore 2.7.0 with vLLM 0.9.1: part of the test suite runs with it, on a CPU")


def test_a_mindspore_that_nobody_tried_is_a_conflict(machine: Any) -> None:
    machine.install_row(mindspore="2.10.0")
    (found,) = machine.problems(packages)
    assert found.text == "mindspore 2.10.0, vLLM 0.9.1 needs <=2.7.1,>=2.7.0"


def test_what_packages_ask_of_each_other_counts_too(machine: Any) -> None:
    machine.install_row(tokenizers="0.15.0")
    machine.install(
        "vllm",
        "0.9.1",
        requires=["tokenizers>=0.21.1", "xgrammar==0.1.19; platform_machine == 'nowhere'", "boto3; extra == 's3'"],
    )
    machine.install("transformers", "4.51.3", requires=["tokenizers<0.22,>=0.21"])
    (found,) = machine.problems(packages)
    assert found.text == "tokenizers 0.15.0, vllm 0.9.1 needs >=0.21.1 and transformers 4.51.3 needs <0.22,>=0.21"
    assert "'tokenizers>=0.21.1,<0.22,>=0.21'" in found.remedy.command


def test_a_missing_package_is_named(machine: Any) -> None:
    machine.install_row()
    machine.install("mindspore", "2.7.1", requires=["safetensors>=0.4.0"])
    (found,) = machine.problems(packages)
    assert found.text == "safetensors is not installed, mindspore 2.7.1 needs >=0.4.0"


def test_uv_installs_where_there_is_no_pip(machine: Any) -> None:
    machine.install_row(numpy="2.2.0")
    for file in (machine.site / "pip-25.0.dist-info").iterdir():
        file.unlink()
    (found,) = machine.problems(packages)
    assert found.remedy.command == "/env/bin/python -m ensurepip && /env/bin/python -m pip install 'numpy<2'"
    machine.write("bin/uv").chmod(0o755)
    machine.environ = {"PATH": str(machine.root / "bin")}
    (found,) = machine.problems(packages)
    assert found.remedy.command == "uv pip install --python /env/bin/python 'numpy<2'"


def test_a_vllm_without_a_row_is_named_first(machine: Any) -> None:
    machine.install_row(vllm="0.10.0", numpy="2.2.0")
    found = machine.problems(packages, obstacle="vLLM 0.10.0 is installed, and there is no adapter for it.")
    assert found[0].text == "vLLM 0.10.0 is installed, and there is no adapter for it."
    assert found[0].remedy.command == "/env/bin/python -m pip install 'PATH[vllm091]'"
    assert [one.text.split()[0] for one in found[1:]] == ["numpy"]


def test_another_row_can_be_asked_about(machine: Any) -> None:
    machine.install_row(transformers="4.53.3")
    assert [found.text for found in machine.problems(packages, "vllm083")] == [
        "vllm 0.9.1, the row vllm083 needs ==0.8.3",
        "torch 2.7.0, vLLM 0.8.3 needs ==2.6.0",
        "transformers 4.53.3, vLLM 0.8.3 needs <4.52,>=4.51.0",
    ]


def test_what_is_to_be_replaced_asks_for_nothing(machine: Any) -> None:
    machine.install_row(torch="2.6.0", transformers="4.57.1", numpy="2.2.6")
    machine.install("triton", "3.3.0")
    machine.install("nvidia-cublas-cu12", "12.6.4.1")
    machine.install("vllm", "0.9.1", requires=["torch==2.7.0", "transformers>=4.51.1", "tokenizers>=0.21.1"])
    machine.install("torch", "2.6.0", requires=["triton==3.2.0", "nvidia-cublas-cu12==12.4.5.8"])
    machine.install("transformers", "4.57.1", requires=["tokenizers<=0.23.0,>=0.22.0"])
    found = machine.problems(packages)
    assert [one.text for one in found] == [
        "numpy 2.2.6, vLLM 0.9.1 needs <2",
        "torch 2.6.0, vllm 0.9.1 needs ==2.7.0",
        "transformers 4.57.1, vLLM 0.9.1 needs <4.54,>=4.51.1",
    ]
    assert found[0].remedy.command.endswith("install 'numpy<2' torch==2.7.0 'transformers<4.54,>=4.51.1'")


def test_packages_of_the_row_come_before_what_others_ask_for(machine: Any) -> None:
    machine.install_row(numpy="2.2.6")
    machine.install("asttokens", "1.0")
    machine.install("mindspore", "2.7.1", requires=["asttokens>=2.0.4"])
    assert [one.text for one in machine.problems(packages)] == [
        "numpy 2.2.6, vLLM 0.9.1 needs <2",
        "asttokens 1.0, mindspore 2.7.1 needs >=2.0.4",
    ]
