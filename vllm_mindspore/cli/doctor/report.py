"""The report, for people and for machines."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

from rich.console import Console
from rich.text import Text

from vllm_mindspore.cli.doctor.examination import Diagnosis, Examined
from vllm_mindspore.cli.doctor.surroundings import Surroundings

SCHEMA = 2
"""Of the JSON, as docs/check-env.md describes it; raised whenever a reader of the old one would be misled."""
_MARKS = {"ok": ("✔", "green"), "problem": ("✘", "bold red"), "note": ("!", "yellow")}
_ASCII = {"✔": "v", "✘": "X", "!": "!"}


class TextReport:
    """Prints each check as it comes.

    Args:
        console: where to.
        width: of the column of names.
    """

    def __init__(self, console: Console, width: int) -> None:
        self._console, self._width = console, width
        self._ascii = not console.encoding.lower().startswith("utf")

    def head(self, around: Surroundings) -> None:
        """Say what is looked at, before anything that takes time."""
        row = around.row
        self._print(
            Text(f"vllm-mindspore {version('vllm-mindspore')} in {around.python} on {platform.machine()}, "),
            Text(f"for vLLM {row.vllm}, engine {row.engine}", "bold"),
            Text(f" (extra {row.extra})\n"),
        )

    def check(self, examined: Examined) -> None:
        """Print the findings of a check; a command that mends several of them stands under the last."""
        for i, diagnosis in enumerate(examined.diagnoses):
            following = examined.diagnoses[i + 1 : i + 2]
            self._finding(examined.name if i == 0 else "", diagnosis)
            remedy = diagnosis.finding.remedy
            if remedy and not diagnosis.follows_from and not any(d.finding.remedy == remedy for d in following):
                where = f" ({remedy.by_hand})" if remedy.by_hand else ""
                self._print(Text(" " * (self._width + 4)), Text(f"mend it{where}: "), Text(remedy.command, "cyan"))

    def tail(self, examined: Sequence[Examined], seconds: float) -> None:
        """Name the causes, and what follows from each."""
        named = [(one.name, diagnosis) for one in examined for diagnosis in one.diagnoses]
        causes = list(dict.fromkeys(name for name, diagnosis in named if diagnosis.is_cause))
        if not causes:
            self._print(Text(f"\nNothing that was looked at keeps vLLM from running on MindSpore. ({seconds:.0f} s)"))
            return
        self._print(Text("\nMend first:", "bold"))
        for cause in causes:
            texts = [d.finding.text for name, d in named if name == cause and d.is_cause]
            told = f"{texts[0].rstrip('.')}, and {len(texts) - 1} more" if len(texts) > 1 else texts[0]
            self._print(Text(f"  {cause.ljust(self._width)}", "bold"), Text(f"  {told}"))
            effects = dict.fromkeys(name for name, d in named if d.follows_from == cause and name != cause)
            if effects:
                self._print(
                    Text(" " * (self._width + 4) + f"and look again at {', '.join(effects)}, which may follow from it")
                )
        self._print(Text(f"vllm-mindspore check-env --fix prints a script that does it. ({seconds:.0f} s)"))

    def _finding(self, name: str, diagnosis: Diagnosis) -> None:
        mark, style = _MARKS[diagnosis.finding.status]
        why = f" (follows from {diagnosis.follows_from})" if diagnosis.follows_from else ""
        self._print(
            Text(f"{_ASCII[mark] if self._ascii else mark} ", style),
            Text(name.ljust(self._width + 2), "bold"),
            Text(diagnosis.finding.text),
            Text(why, "dim"),
        )

    def _print(self, *parts: Text) -> None:
        line = Text.assemble(*parts)
        if self._ascii:
            line.plain = line.plain.encode(self._console.encoding, "replace").decode(self._console.encoding)
        self._console.print(line, soft_wrap=True, highlight=False)


def as_json(examined: Sequence[Examined], around: Surroundings, seconds: float) -> dict[str, Any]:
    """The report as docs/check-env.md describes it."""
    row = around.row
    diagnoses = [(one.name, diagnosis) for one in examined for diagnosis in one.diagnoses]
    return {
        "schema": SCHEMA,
        "version": version("vllm-mindspore"),
        "healthy": healthy(examined),
        "causes": list(dict.fromkeys(name for name, diagnosis in diagnoses if diagnosis.is_cause)),
        "row": {"extra": row.extra, "vllm": row.vllm, "engine": row.engine, "adapter": row.adapter},
        "python": around.python,
        "seconds": round(seconds, 2),
        "checks": [
            {
                "name": one.name,
                "looks_at": one.looks_at,
                "status": one.status,
                "seconds": round(one.seconds, 2),
                "findings": [_finding_as_json(diagnosis) for diagnosis in one.diagnoses],
            }
            for one in examined
        ],
    }


def _finding_as_json(diagnosis: Diagnosis) -> dict[str, Any]:
    remedy = diagnosis.finding.remedy
    return {
        "status": diagnosis.finding.status,
        "text": diagnosis.finding.text,
        "follows_from": diagnosis.follows_from,
        "remedy": {"command": remedy.command, "by_hand": remedy.by_hand or None} if remedy else None,
    }


def healthy(examined: Sequence[Examined]) -> bool:
    """Whether no check found a problem."""
    return all(one.status != "problem" for one in examined)
