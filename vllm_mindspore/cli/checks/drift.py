"""Whether the installed vLLM is still what its adapter was written for: a changed or half-upgraded vLLM is named instead of crashing later."""

from __future__ import annotations

import json

from vllm_mindspore.cli.checks.finding import Finding, Probe, probe
from vllm_mindspore.errors import UserError
from vllm_mindspore.matrix import row_for_installed_vllm

_CODE = """
import json, os
os.environ["VLLM_PLUGINS"] = ""  # vLLM as it is without us: it may be so different that our platform does not load
os.environ["VLLM_LOGGING_LEVEL"] = "CRITICAL"
from vllm_mindspore.compat.common.drift import contract, differences
print(json.dumps({{adapter: [len(contract(adapter)), differences(contract(adapter))] for adapter in {adapters}}}))
"""


def compare(adapters: list[str]) -> Probe:
    """For each adapter, how many names its contract has and a sentence for each that differs in the installed vLLM."""
    return probe(_CODE.format(adapters=json.dumps(adapters)))


def run() -> list[Finding]:
    try:
        row = row_for_installed_vllm()
    except UserError:
        return []  # `packages` says so
    found = compare([row.adapter])
    remedy = f"pip install --force-reinstall --no-deps 'vllm=={row.vllm}'"
    if found.result is None:
        return [Finding("problem", f"vLLM does not import: {found.error}", remedy)]
    count, sentences = found.result[row.adapter]
    if not count:
        return [Finding("note", f"Adapter {row.adapter} has not written down what it relies on in vLLM")]
    if not sentences:
        return [Finding("ok", f"vLLM is what adapter {row.adapter} was written for: {count} names are as they were")]
    return [
        Finding("problem", f"This vLLM is not the one that adapter {row.adapter} was written for: {sentence}", remedy)
        for sentence in sentences
    ]
