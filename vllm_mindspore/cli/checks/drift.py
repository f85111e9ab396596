"""Whether the installed vLLM is still what its adapter was written for: a changed or half-upgraded vLLM is named instead of crashing later."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from vllm_mindspore.cli.checks.imports import libraries
from vllm_mindspore.cli.doctor.finding import Finding, note, ok, problem
from vllm_mindspore.cli.doctor.installing import vllm_of_the_row
from vllm_mindspore.cli.doctor.probing import Probes
from vllm_mindspore.cli.doctor.surroundings import Surroundings

NAME = "drift"
LOOKS_AT = "whether the installed vLLM is what the adapter was written for"
FOLLOWS = ("rivals", "packages", "files", "imports")

_NAMED = 10
"""Differences that are printed."""
_PATIENCE = 240


@dataclass(frozen=True)
class Comparison:
    """What `compare` found."""

    result: Any
    """Adapter -> how many names its contract has, and a sentence for each that differs. None if vLLM does not import."""
    error: str


def compare(adapters: list[str]) -> Comparison:
    """Compare the installed vLLM with the contract of each adapter."""
    with Probes(_PATIENCE, os.environ) as probes:
        answers = probes.ask("libraries", adapters=adapters)
    error = (answers.parts.get("vllm") or {}).get("error", answers.error)
    return Comparison(answers.parts.get("drift"), error)


def run(around: Surroundings) -> Iterator[Finding]:
    if not around.vllm_is_of_the_row:
        return  # `packages` says so
    row = around.row
    found = libraries(around).parts.get("drift")
    if found is None:
        yield note("Not looked at, as vLLM cannot be imported")
        return
    count, sentences = found[row.adapter]
    if not count:
        yield note(f"Adapter {row.adapter} has not written down what it relies on in vLLM")
    elif not sentences:
        yield ok(f"vLLM is what adapter {row.adapter} was written for: {count} names are as they were")
    remedy = vllm_of_the_row(around)
    for sentence in sentences[:_NAMED]:
        yield problem(
            f"This vLLM is not the one that adapter {row.adapter} was written for: {sentence}", remedy, {"vllm"}
        )
    if len(sentences) > _NAMED:
        yield note(f"and {len(sentences) - _NAMED} more differences: vllm-mindspore matrix --probe --json lists them")
