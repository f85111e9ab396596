"""The plot: floating point operations of a step for each byte that it must read, against those that are done in a second."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from report import SIDES, limits

MARKERS = {SIDES[0]: ("o", "#c2410c"), SIDES[1]: ("s", "#1d4ed8"), SIDES[2]: ("^", "#4d7c0f")}


def draw(results: Mapping[str, Any], file: Path) -> None:
    """Write an SVG, with the same bytes for the same figures."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams.update({"svg.hashsalt": "bench", "svg.fonttype": "none", "font.size": 9})
    from matplotlib import pyplot

    reads, peak = limits(results)
    steps = {work: row for work, row in results["rows"].items() if row["step"]}
    if not steps:
        return
    figure, axes = pyplot.subplots(figsize=(8, 4.5))
    ridge = peak / reads
    ends = (0.5, 4 * max(ridge, *(row["step"]["flops"] / row["step"]["bytes"] for row in steps.values())))
    axes.plot([ends[0], ridge, ends[1]], [ends[0] * reads, peak, peak], color="#444444", linewidth=1.2)
    axes.annotate(f"{reads:.0f} GB/s", (ridge / 3, 0.5 * reads * ridge / 3), color="#444444")
    axes.annotate(f"{peak:.0f} GFLOP/s", (ridge * 1.5, peak * 1.12), color="#444444")
    for side, (marker, color) in MARKERS.items():
        points = [_point(row, side) for row in steps.values() if side in row["sides"]]
        if points:
            axes.scatter(*zip(*points), marker=marker, color=color, label=side, s=28, zorder=3)
    for work, row in steps.items():
        axes.axvline(row["step"]["flops"] / row["step"]["bytes"], color="#dddddd", linewidth=0.8, zorder=0)
        axes.annotate(
            work, (row["step"]["flops"] / row["step"]["bytes"], 1.2), rotation=90, color="#777777", fontsize=6.5, ha="right", va="bottom"
        )  # fmt: skip
    axes.set(xscale="log", yscale="log", xlim=ends, ylim=(1, peak * 2), xlabel="operations for each byte that a step must read", ylabel="GFLOP/s")  # fmt: skip
    axes.legend(loc="upper left", frameon=False)
    figure.tight_layout()
    figure.savefig(file, metadata={"Date": None})
    pyplot.close(figure)
    file.write_text("\n".join(line.rstrip() for line in file.read_text().splitlines()) + "\n")


def _point(row: Mapping[str, Any], side: str) -> tuple[float, float]:
    step = row["step"]
    steps_per_second = statistics.median(row["sides"][side]) / step["tokens"]
    return step["flops"] / step["bytes"], steps_per_second * step["flops"] / 1e9
