"""`vllm-mindspore check-env`: what would keep vLLM from running on MindSpore, and the command that mends it."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import shtab
from rich.console import Console

from vllm_mindspore.cli.checks import CHECKS, model
from vllm_mindspore.cli.doctor.examination import Examined, examine
from vllm_mindspore.cli.doctor.finding import Check
from vllm_mindspore.cli.doctor.probing import Probes
from vllm_mindspore.cli.doctor.report import TextReport, as_json, healthy
from vllm_mindspore.cli.doctor.script import commands, script
from vllm_mindspore.cli.doctor.surroundings import CHOICES_OF_DTYPE, Surroundings, Wanted, choose_row
from vllm_mindspore.errors import UserError
from vllm_mindspore.matrix import rows

SECONDS = 18
"""What the probes have together by default, so that the whole takes less than 20."""
EXAMPLES = (
    "vllm-mindspore check-env",
    "vllm-mindspore check-env --model Qwen/Qwen2.5-0.5B-Instruct --max-model-len 4096",
    "vllm-mindspore check-env --row vllm083 --only packages",
    "vllm-mindspore check-env --fix > mend.sh",
    "vllm-mindspore check-env --fix --apply",
    "vllm-mindspore check-env --json | jq .causes",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of the command."""
    parser.add_argument("--json", action="store_true", help="print the report as JSON, see docs/check-env.md")
    parser.add_argument(
        "--row",
        choices=list(dict.fromkeys(row.extra for row in rows())),
        help="ask what would be wrong for another release of vLLM (default: the installed one)",
    )
    names = [check.NAME for check in CHECKS]
    width = max(map(len, names))
    listed = parser.add_argument_group("checks", "\n".join(f"{c.NAME:{width}}  {c.LOOKS_AT}" for c in CHECKS))
    chosen = listed.add_mutually_exclusive_group()
    every: dict[str, Any] = {"metavar": "NAME", "nargs": "+", "action": "extend", "choices": names}
    chosen.add_argument("--only", **every, help="run these checks")
    chosen.add_argument("--skip", **every, default=[], help="run all but these checks")
    model = parser.add_argument("--model", metavar="PATH_OR_ID", help="also look whether this model can be served here")
    model.complete = shtab.DIRECTORY  # type: ignore[attr-defined]
    parser.add_argument(
        "--max-model-len", metavar="N", type=_positive, help="with --model: tokens that a sequence may have"
    )
    parser.add_argument(
        "--dtype", choices=CHOICES_OF_DTYPE, help="with --model: as vllm serve takes it (default: auto)"
    )
    parser.add_argument(
        "--fix", action="store_true", help="print a script that mends what was found; the report goes to stderr"
    )
    parser.add_argument("--apply", action="store_true", help="with --fix: run it, after asking, and look again")
    parser.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=_positive,
        default=SECONDS,
        help="how long what is imported and run may take (default: %(default)s)",
    )


def run(options: argparse.Namespace) -> int:
    """Run the chosen checks and print each finding as it comes.

    Returns:
        0 if nothing is wrong, 1 if something is, 2 if the flags make no sense together.

    Raises:
        UserError: the working directory is gone.
    """
    misuse = _misuse(options)
    if misuse:
        print(f"vllm-mindspore check-env: {misuse}", file=sys.stderr)
        return 2
    try:
        os.getcwd()
    except FileNotFoundError:
        raise UserError("the folder that it was started in is gone: start it in another one.") from None
    checks = _chosen(options)
    row, obstacle = choose_row(options.row)
    wanted = Wanted(
        row,
        asked=options.row is not None,
        obstacle=obstacle,
        model=options.model,
        max_model_len=options.max_model_len,
        dtype=options.dtype or "auto",
    )
    console = Console(stderr=options.fix)
    report = None if options.json else TextReport(console, max(len(check.NAME) for check in checks))
    begin = time.monotonic()
    with Probes(options.timeout, os.environ) as probes:
        around = Surroundings(wanted, probes)
        if report:
            report.head(around)
        examined = _examine(checks, around, report, console)
    seconds = time.monotonic() - begin
    if report:
        report.tail(examined, seconds)
    else:
        print(json.dumps(as_json(examined, around, seconds), indent=2, ensure_ascii=False))
    if options.fix and not healthy(examined):
        again = [argument for argument in sys.argv if argument not in ("--fix", "--apply")]
        return _fix(examined, options.apply, [sys.executable, *again])
    return 0 if healthy(examined) else 1


def _positive(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive whole number")
    return int(text)


def _misuse(options: argparse.Namespace) -> str | None:
    if options.apply and not options.fix:
        return "--apply runs what --fix prints: give both."
    if options.fix and options.json:
        return "--fix prints a script and --json a report: choose one."
    if not _chosen(options):
        return "--skip leaves nothing to look at."
    if options.model is not None and model not in _chosen(options):
        return "--model is for the check model, which --only or --skip leaves out: let it be looked at, or leave --model out."
    if options.model is None and (options.max_model_len is not None or options.dtype is not None):
        return "--max-model-len and --dtype are about a model: name it with --model."
    return None


def _chosen(options: argparse.Namespace) -> list[Check]:
    return [
        check for check in CHECKS if check.NAME not in options.skip and check.NAME in (options.only or [check.NAME])
    ]


def _examine(
    checks: Sequence[Check], around: Surroundings, report: TextReport | None, console: Console
) -> list[Examined]:
    examined = []
    waiting: Any = console.status("looking") if report and console.is_terminal else nullcontext()
    with waiting as status:
        for i, one in enumerate(examine(checks, around)):
            examined.append(one)
            if report:
                report.check(one)
            if status and i + 1 < len(checks):
                status.update(f"looking at {checks[i + 1].LOOKS_AT}")
    return examined


def _fix(examined: Sequence[Examined], apply: bool, again: Sequence[str]) -> int:
    if not apply:
        print(script(examined), end="")
        return 1
    found = commands(examined)
    if not found:
        print("Nothing of this can be mended by a script: see above for what to do by hand.", file=sys.stderr)
        return 1
    print("\nThis would be run:", *(f"  {command}" for command in found), sep="\n", file=sys.stderr)
    print("Run it? [y/N] ", end="", file=sys.stderr, flush=True)
    answer = sys.stdin.readline() if sys.stdin else ""  # which may be closed
    if answer.strip().lower() not in ("y", "yes"):
        print("Nothing was changed.", file=sys.stderr)
        return 1
    done = subprocess.run(["sh", "-c", script(examined)])
    if done.returncode:
        print(f"A command failed with exit code {done.returncode}; what comes after it was not run.", file=sys.stderr)
        return 1
    return subprocess.run(again).returncode
