"""`vllm-mindspore matrix`: the table, and which adapter fits an installed vLLM best."""

from __future__ import annotations

import json
from importlib.metadata import PackageNotFoundError, version

from vllm_mindspore.errors import UserError
from vllm_mindspore.matrix import TRY_UNKNOWN, rows

_NAMED = 20
"""Differences that are printed for the adapter that fits best; `--json` has all."""


def show(as_json: bool) -> int:
    """Print the rows."""
    if as_json:
        print(json.dumps([row.as_dict() for row in rows()], indent=2))
        return 0
    for row in rows():
        print(f"vLLM {row.vllm}, engine {row.engine}  (extra {row.extra}, verified: {row.verified})")
        for name, specifier in sorted(row.requirements.items()):
            print(f"  {name}{specifier}")
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
        for sentence in differences[:_NAMED]:
            print(f"  {sentence}")
        if len(differences) > _NAMED:
            print(f"  and {len(differences) - _NAMED} more, see --json")
        if installed.partition("+")[0] not in {row.vllm for row in rows()}:
            print(f"This release has no row; {TRY_UNKNOWN}=1 tries the nearest one's adapter.")
    return 0 if not fits[0][2] else 1
