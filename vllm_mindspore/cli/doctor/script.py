"""The commands that mend what was found, as a script."""

from __future__ import annotations

from collections.abc import Sequence

from vllm_mindspore.cli.doctor.examination import Examined


def commands(examined: Sequence[Examined]) -> dict[str, list[str]]:
    """Command -> what it mends, for the causes whose remedy needs nobody's hands."""
    found: dict[str, list[str]] = {}
    for name, text, command, by_hand in _remedies(examined):
        if not by_hand:
            found.setdefault(command, []).append(f"{name}: {text}")
    return found


def script(examined: Sequence[Examined]) -> str:
    """A shell script: one command for each cause, once; what only a person can do stands in it as a comment."""
    lines = ["#!/bin/sh", "# Made by vllm-mindspore check-env --fix.", "set -e"]
    for command, reasons in commands(examined).items():
        lines += ["", *(f"# {reason}" for reason in reasons), command]
    by_hand: dict[tuple[str, str], list[str]] = {}
    for name, text, command, where in _remedies(examined):
        if where:
            by_hand.setdefault((command, where), []).append(f"{name}: {text}")
    for (command, where), reasons in by_hand.items():
        lines += ["", *(f"# {reason}" for reason in reasons), f"# By hand, {where}:", f"#   {command}"]
    return "\n".join(lines) + "\n"


def _remedies(examined: Sequence[Examined]) -> list[tuple[str, str, str, str]]:
    return [
        (one.name, " ".join(diagnosis.finding.text.split()), remedy.command, remedy.by_hand)
        for one in examined
        for diagnosis in one.diagnoses
        if diagnosis.is_cause and (remedy := diagnosis.finding.remedy)
    ]
