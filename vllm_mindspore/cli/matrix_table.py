"""`vllm-mindspore matrix`: the table, and which adapter fits an installed vLLM best."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from vllm_mindspore.errors import UserError
from vllm_mindspore.matrix import TRY_UNKNOWN, Row, nearest_release, rows

_NAMED = 20
"""Differences that are printed for one adapter; `--json` has all."""


@dataclass(frozen=True)
class Table:
    titles: tuple[str, ...]
    lines: tuple[tuple[str, ...], ...]

    def text(self) -> str:
        widths = [max(len(line[column]) for line in (self.titles, *self.lines)) for column in range(len(self.titles))]
        return "\n".join(
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip()
            for line in (self.titles, *self.lines)
        )

    def markdown(self) -> str:
        rule = ("---",) * len(self.titles)
        return "\n".join(f"| {' | '.join(line)} |" for line in (self.titles, rule, *self.lines))


def releases() -> Table:
    """A line for each release of vLLM: what its extra installs."""
    engines = {row.vllm: [other.engine for other in rows() if other.vllm == row.vllm] for row in rows()}
    return Table(
        ("vLLM", "engines", "extra", "Python", "MindSpore", "torch", "transformers"),
        tuple(
            (
                row.vllm,
                ", ".join(engines[row.vllm]),
                row.extra,
                row.python,
                row.everywhere["mindspore"],
                row.torch,
                row.everywhere["transformers"],
            )
            for row in _one_of_each_release()
        ),
    )


def pairs() -> Table:
    """A line for each pair of a vLLM release and a MindSpore on a device: how it was verified."""
    return Table(
        ("vLLM", "MindSpore", "device", "CANN", "Python", "verified", "shown"),
        tuple(
            (
                row.vllm,
                ", ".join(pair.mindspore),
                pair.device,
                ", ".join(pair.cann),
                pair.python,
                pair.verified,
                pair.shown,
            )
            for row in _one_of_each_release()
            for pair in row.pairs
        ),
    )


def _one_of_each_release() -> list[Row]:
    """The newest first."""
    return list({row.vllm: row for row in reversed(rows())}.values())


def show(form: str) -> int:
    """Print the matrix.

    Args:
        form: text, markdown or json.
    """
    if form == "json":
        print(json.dumps([row.as_dict() for row in rows()], indent=2))
    elif form == "markdown":
        print(releases().markdown(), pairs().markdown(), sep="\n\n")
    else:
        print(releases().text(), pairs().text(), sep="\n\n")
    return 0


def probe(as_json: bool) -> int:
    """Compare the installed vLLM with the contract of every adapter, and print how many names differ, the best fit first.

    Returns:
        0 if one adapter fits without a difference, 1 otherwise.

    Raises:
        UserError: there is no vLLM, or it does not import.
    """
    from vllm_mindspore.cli.checks.drift import compare

    try:
        installed = version("vllm")
    except PackageNotFoundError:
        raise UserError("vLLM is not installed, so there is nothing to compare with.") from None
    found = compare([row.adapter for row in rows()])
    if found.result is None:
        raise UserError(f"vLLM {installed} does not import: {found.error}")
    fits = [(row, *found.result[row.adapter]) for row in reversed(rows()) if found.result[row.adapter][0]]
    # By the share that differs, as contracts are not of one length; the newest of equals first.
    fits.sort(key=lambda fit: len(fit[2]) / fit[1])
    if as_json:
        report = [
            {"adapter": row.adapter, "vllm": row.vllm, "engine": row.engine, "names": names, "differences": differences}
            for row, names, differences in fits
        ]
        print(json.dumps({"installed": installed, "fits": report}, indent=2))
    else:
        print(f"vLLM {installed} is installed.")
        for row, names, differences in fits:
            print(f"  {row.adapter} (vLLM {row.vllm}, {row.engine}): {len(differences)} of {names} names differ")
        best, _, differences = fits[0]
        print(f"{best.adapter} fits best." if differences else f"{best.adapter} fits.")
        release = installed.partition("+")[0]
        if release not in {row.vllm for row in rows()}:
            nearest = nearest_release(release)
            tried = next(row for row in rows() if row.vllm == nearest)
            _, differences = found.result[tried.adapter]
            print(
                f"vLLM {release} has no row: {TRY_UNKNOWN}=1 tries {tried.adapter}, as {nearest} is the nearest release."
            )
        for sentence in differences[:_NAMED]:
            print(f"  {sentence}")
        if len(differences) > _NAMED:
            print(f"  and {len(differences) - _NAMED} more, see --json")
    return 0 if not fits[0][2] else 1
