"""Whether packages can be imported, by what the probes answer."""

from __future__ import annotations

from typing import Any

import pytest

from vllm_mindspore.cli.checks import imports

FINE: dict[str, Any] = {"numpy": {}, "torch": {}, "tokenizers": {}, "transformers": {}, "vllm": {}}


@pytest.fixture
def complete(machine: Any) -> Any:
    machine.install_row()
    machine.answer("libraries", FINE)
    machine.answer("graph", {"mindspore": {}})
    return machine


def test_what_can_be_imported_is_listed(complete: Any) -> None:
    assert complete.is_fine(imports) == "numpy, torch, tokenizers, transformers, vllm, mindspore can be imported"


def test_what_cannot_is_named_with_the_reason_and_the_place(complete: Any) -> None:
    failed = {
        "error": "ValueError: 'aimv2' is already used",
        "at": "transformers/configuration_auto:1",
        "through": ["vllm", "transformers"],
    }
    complete.answer("libraries", {**FINE, "vllm": failed})
    (found,) = complete.problems(imports)
    assert found.text == "import vllm fails: ValueError: 'aimv2' is already used (transformers/configuration_auto:1)"
    assert found.about == {"vllm", "transformers"}


def test_a_crash_is_told_from_a_hang(complete: Any) -> None:
    complete.answer("graph", error="killed by signal 11")
    (found,) = complete.problems(imports)
    assert found.text == "import mindspore ends Python: killed by signal 11"
    complete.answer("graph", error="no answer within 18 s", timed_out=True)
    (found,) = complete.problems(imports)
    assert found.text == "import mindspore gives no answer within 18 s: it hangs, or disk and processor are busy"
    assert found.remedy.command == "vllm-mindspore check-env --timeout 120"


def test_what_stands_on_a_broken_package_follows_from_it(complete: Any) -> None:
    torch = {"error": "OSError: libtorch.so", "at": "torch/__init__:1", "through": ["torch", "ctypes"]}
    complete.answer(
        "libraries",
        {
            **FINE,
            "torch": torch,
            "transformers": {**torch, "through": ["transformers", "torch"]},
            "vllm": {**torch, "through": ["vllm", "transformers"]},
        },
    )
    complete.answer("graph", {"mindspore": {**torch, "through": ["mindspore", "numpy"]}})
    found = complete.problems(imports)
    assert [(one.text.split()[1], one.follows) for one in found] == [
        ("torch", False),
        ("transformers", True),
        ("vllm", True),
        ("mindspore", False),
    ]
    assert "torch" in found[2].about


def test_what_the_probe_did_not_come_to_follows_from_what_ended_it(complete: Any) -> None:
    complete.answer("libraries", {"numpy": {}}, error="killed by signal 11")
    assert [(one.text, one.follows) for one in complete.problems(imports)] == [
        ("import torch ends Python: killed by signal 11", False),
        ("import tokenizers was not come to: killed by signal 11", True),
        ("import transformers was not come to: killed by signal 11", True),
        ("import vllm was not come to: killed by signal 11", True),
    ]


def test_what_is_not_installed_is_not_imported(machine: Any) -> None:
    assert machine.look(imports) == []
