"""The NPUs as npu-smi tells of them: how many, which, how healthy, how full. Nobody ran this on an NPU."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

from vllm_mindspore.cli.checks.ascend_driver import ABOUT
from vllm_mindspore.cli.doctor import ascend
from vllm_mindspore.cli.doctor.finding import Finding, Remedy, note, ok, problem
from vllm_mindspore.cli.doctor.surroundings import Surroundings

NAME = "ascend-devices"
LOOKS_AT = "the NPUs that npu-smi tells of, and their health"
FOLLOWS = ("ascend-driver",)

_SECONDS = 10
_UPPER = re.compile(r"^\|\s*(?P<npu>\d+)\s+(?P<name>\S+)\s*\|\s*(?P<health>[A-Za-z]+)\s*\|")
_LOWER = re.compile(
    r"^\|\s*(?P<chip>\d+)(?:\s+\d+)?\s*\|\s*[0-9A-Fa-f]{4}:\S+\s*\|.*?(?P<used>\d+)\s*/\s*(?P<total>\d+)\s*\|\s*$"
)
_MODELS = ("910B", "310P")
"""Of which the forerunner of this project was said to run on."""


@dataclass(frozen=True)
class Device:
    """A chip."""

    npu: int
    chip: int
    name: str
    health: str
    used: int
    """MB of its memory."""
    total: int


def run(around: Surroundings) -> Iterator[Finding]:
    command = ascend.npu_smi(around)
    if command is None:
        if ascend.is_there(around):
            mount = Remedy(
                "docker run -v /usr/local/bin/npu-smi:/usr/local/bin/npu-smi ...", "where the container is started"
            )
            yield note("npu-smi is not here: what the NPUs are and how healthy is not known", mount)
        return
    text, error = _ask(command)
    devices = parse(text)
    if error or not devices:
        words = error or "it lists no device"
        yield problem(
            f"{command} info tells of no NPU: {words}", Remedy(f"{command} info", "as root: see what it says"), ABOUT
        )
        return
    for device in devices:
        where = f"NPU {device.npu}, chip {device.chip}: {device.name}, {device.health}, {device.used} of {device.total} MB used"
        look = Remedy(
            f"{command} info -t health -i {device.npu} -c {device.chip}",
            "as root: see what is wrong, and reset or replace it",
        )
        if device.health.upper() == "OK":
            yield (
                ok(where)
                if any(model in device.name for model in _MODELS)
                else note(f"{where}; neither {' nor '.join(_MODELS)}")
            )
        elif device.health.upper() == "WARNING":
            yield note(where, look)
        else:
            yield problem(where, look, ABOUT)


def parse(text: str) -> list[Device]:
    """The chips in a table of `npu-smi info`."""
    devices, upper = [], None
    for line in text.splitlines():
        lower = _LOWER.match(line)
        if lower and upper:
            numbers = {key: int(lower[key]) for key in ("chip", "used", "total")}
            devices.append(
                Device(
                    int(upper["npu"]),
                    numbers["chip"],
                    upper["name"],
                    upper["health"],
                    numbers["used"],
                    numbers["total"],
                )
            )
        upper = _UPPER.match(line)
    return devices


def _ask(command: str) -> tuple[str, str]:
    """What `npu-smi info` prints, and its last words if it failed."""
    try:
        done = subprocess.run(
            [command, "info"], capture_output=True, text=True, timeout=_SECONDS, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired:
        return "", f"no answer within {_SECONDS} s"
    except OSError as error:
        return "", str(error)
    words = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
    return done.stdout, "" if done.returncode == 0 else (words or [f"exit code {done.returncode}"])[-1]
