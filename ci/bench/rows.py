"""Rows of the table, and the bars that their figures are held against."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sides import OURS

READS, PEAK = "read bandwidth", "peak"

Rounds = Mapping[str, list[float]]


@dataclass
class Bar:
    """What is asked for, and what was found."""

    what: str
    bar: float
    figure: float
    at_most: bool = False
    unit: str = ""
    """"%", "ms", "s" or "x"."""

    @property
    def met(self) -> bool:
        return self.figure <= self.bar if self.at_most else self.figure >= self.bar


@dataclass
class Row:
    """A line of the table."""

    work: str
    unit: str
    sides: dict[str, list[float]]
    """Of each side, a figure for each round."""
    bars: list[Bar] = field(default_factory=list)
    step: dict[str, float] | None = None
    """Bytes and floating point operations of a step, and the tokens that it brings forward."""
    busy: float = 0.0
    """Part of the cores that was at other work, the median over the rounds."""


def ratio(ours: list[float], others: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(ours, others))


def against(figures: Rounds, bars: Mapping[str, float]) -> list[Bar]:
    """Bars of the form "so many times what that side does", for the sides that are there."""
    return [
        Bar(f"of {side}", bar, ratio(figures[OURS], figures[side]), unit="x")
        for side, bar in bars.items()
        if side in figures
    ]


def with_limits(found: dict[str, list[Any]]) -> dict[str, list[float]]:
    """The pairs of limits as two sides, in GB/s and GFLOP/s."""
    pairs = found.pop("limits")
    return {**found, READS: [reads / 1e9 for reads, _ in pairs], PEAK: [peak / 1e9 for _, peak in pairs]}
