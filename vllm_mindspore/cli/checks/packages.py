"""Python and the installed packages against the matrix row of the installed vLLM, all conflicts at once."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

from packaging.specifiers import SpecifierSet

from vllm_mindspore.cli.checks.finding import Finding
from vllm_mindspore.errors import UserError
from vllm_mindspore.matrix import Row, row_for_installed_vllm, rows

_ALSO_NAMED = ("torch", "tokenizers", "protobuf")
"""Left to vLLM's own requirements; named because they matter when something is reported."""


def run() -> list[Finding]:
    try:
        row = row_for_installed_vllm()
    except UserError as error:
        newest = rows()[-1]
        return [
            Finding("problem", str(error), f"pip install 'vllm-mindspore[{newest.extra}]'"),
            *_findings(newest),
        ]
    found = Finding("ok", f"vLLM {version('vllm')}: adapter {row.adapter}, engine {row.engine}")
    return [found, *_findings(row)]


def _findings(row: Row) -> list[Finding]:
    findings = []
    python = platform.python_version()
    if SpecifierSet(row.python).contains(python, prereleases=True):
        findings.append(Finding("ok", f"Python {python} on {platform.machine()}"))
    else:
        findings.append(
            Finding(
                "problem",
                f"Python {python}, vLLM {row.vllm} needs {row.python}",
                f"python3.11 -m venv .venv && .venv/bin/pip install 'vllm-mindspore[{row.extra}]'",
            )
        )
    for name, specifier in sorted(row.requirements.items()):
        remedy = f"pip install '{name}{specifier}'"
        try:
            installed = version(name)
        except PackageNotFoundError:
            findings.append(Finding("problem", f"{name} is not installed, vLLM {row.vllm} needs {specifier}", remedy))
            continue
        if SpecifierSet(specifier).contains(installed, prereleases=True):
            findings.append(Finding("ok", f"{name} {installed}"))
        else:
            findings.append(Finding("problem", f"{name} {installed}, vLLM {row.vllm} needs {specifier}", remedy))
    for name in _ALSO_NAMED:
        try:
            findings.append(Finding("ok", f"{name} {version(name)}"))
        except PackageNotFoundError:
            findings.append(
                Finding("problem", f"{name} is not installed", f"pip install 'vllm-mindspore[{row.extra}]'")
            )
    return findings
