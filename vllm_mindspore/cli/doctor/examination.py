"""Run checks side by side, and tell what follows from what."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from vllm_mindspore.cli.doctor.finding import Check, Finding, Remedy, problem
from vllm_mindspore.cli.doctor.surroundings import Surroundings

_WORST_FIRST = ("problem", "note", "ok")


@dataclass(frozen=True)
class Diagnosis:
    """A finding and where it comes from."""

    finding: Finding
    follows_from: str | None = None
    """Name of the check that found the cause of this problem, if it is not a cause itself."""

    @property
    def is_cause(self) -> bool:
        return self.finding.status == "problem" and self.follows_from is None


@dataclass(frozen=True)
class Examined:
    """A check that was run."""

    name: str
    looks_at: str
    seconds: float
    diagnoses: tuple[Diagnosis, ...]

    @property
    def status(self) -> str:
        """The worst of its findings; skipped if there was nothing to look at."""
        found = {diagnosis.finding.status for diagnosis in self.diagnoses}
        return next((status for status in _WORST_FIRST if status in found), "skipped")


def examine(checks: Sequence[Check], around: Surroundings) -> Iterator[Examined]:
    """Run all checks at once and give each as soon as it and those before it are done."""
    earlier: dict[str, list[tuple[Finding, str]]] = {}
    with ThreadPoolExecutor(max_workers=len(checks) or 1) as pool:
        running = [(check, pool.submit(_run, check, around)) for check in checks]
        try:
            for check, future in running:
                findings, seconds = future.result()
                diagnoses = tuple(Diagnosis(finding, _cause(finding, check, earlier)) for finding in findings)
                earlier[check.NAME] = [
                    (diagnosis.finding, diagnosis.follows_from or check.NAME)
                    for diagnosis in diagnoses
                    if diagnosis.finding.status == "problem"
                ]
                yield Examined(check.NAME, check.LOOKS_AT, seconds, diagnoses)
        except BaseException:
            around.probes.stop()  # interrupted: the pool waits for checks, and they for probes
            raise


def _run(check: Check, around: Surroundings) -> tuple[list[Finding], float]:
    begin = time.monotonic()
    try:
        findings = sorted(check.run(around), key=lambda finding: _WORST_FIRST.index(finding.status))
    except Exception as error:
        skip = Remedy(f"vllm-mindspore check-env --skip {check.NAME}", "and report this as a bug of check-env")
        findings = [problem(f"This check failed itself: {type(error).__name__}: {error}", skip)]
    return findings, time.monotonic() - begin


def _cause(finding: Finding, check: Check, earlier: dict[str, list[tuple[Finding, str]]]) -> str | None:
    if finding.status != "problem":
        return None
    for name in check.FOLLOWS:
        for other, root in earlier.get(name, []):
            if other.about & finding.about:
                return root
    return check.NAME if finding.follows else None
