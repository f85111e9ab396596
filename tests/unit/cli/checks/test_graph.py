"""Whether MindSpore runs a graph."""

from __future__ import annotations

from typing import Any

import pytest

from vllm_mindspore.cli.checks import graph


def test_a_right_answer_is_fine(machine: Any) -> None:
    machine.install_row()
    machine.answer("graph", {"mindspore": {}, "graph": {"device": "CPU", "answer": [3.0]}})
    assert machine.is_fine(graph) == "MindSpore 2.7.1 runs a graph on the device CPU"


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        (
            {"mindspore": {}, "graph": {"device": "CPU", "answer": [1.5]}},
            "MindSpore computes [1.5] where [3.0] is right",
        ),
        (
            {"mindspore": {}, "graph": {"error": "RuntimeError: no kernel", "at": "", "through": []}},
            "MindSpore runs no graph: RuntimeError: no kernel",
        ),
        ({"mindspore": {}}, "MindSpore runs no graph: killed by signal 6"),
    ],
)
def test_what_goes_wrong_is_named(machine: Any, parts: dict[str, Any], said: str) -> None:
    machine.install_row()
    machine.answer("graph", parts, error="killed by signal 6")
    (found,) = machine.problems(graph)
    assert found.text == said
    assert found.remedy.command.endswith("--force-reinstall --no-deps mindspore==2.7.1")


def test_a_mindspore_that_does_not_import_is_not_blamed_twice(machine: Any) -> None:
    machine.install_row()
    machine.answer("graph", {"mindspore": {"error": "ImportError", "at": "", "through": []}})
    assert [found.status for found in machine.look(graph)] == ["note"]
