"""`vllm-mindspore check-env`: what would keep vLLM from running on MindSpore, and the command that mends it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib import import_module

from vllm_mindspore.cli.checks.finding import Finding

CHECKS = ("packages", "kernels", "device", "drift", "platform_plugin")
"""Files in `checks/`, in the order in which a broken environment is best understood."""

_MARKS = {"ok": "✔", "problem": "✘", "note": "!"}


def run(as_json: bool) -> int:
    """Run all checks and print each finding as it comes.

    Returns:
        0 if nothing is wrong, 1 otherwise.
    """
    findings = []
    for check, finding in _findings():
        findings.append({"check": check, "status": finding.status, "text": finding.text, "remedy": finding.remedy})
        if not as_json:
            print(f"{_MARKS[finding.status]} {finding.text}", flush=True)
            if finding.remedy:
                print(f"    mend it: {finding.remedy}", flush=True)
    healthy = all(finding["status"] != "problem" for finding in findings)
    if as_json:
        print(json.dumps({"schema": 1, "healthy": healthy, "findings": findings}, indent=2, ensure_ascii=False))
    return 0 if healthy else 1


def _findings() -> Iterator[tuple[str, Finding]]:
    for check in CHECKS:
        for finding in import_module(f"vllm_mindspore.cli.checks.{check}").run():
            yield check, finding
