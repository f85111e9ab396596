"""Which NPUs the environment lets a process see. Nobody ran this on an NPU."""

from __future__ import annotations

from collections.abc import Iterator

from vllm_mindspore.cli.checks.ascend_driver import ABOUT
from vllm_mindspore.cli.doctor import ascend
from vllm_mindspore.cli.doctor.finding import Finding, Remedy, ok, problem
from vllm_mindspore.cli.doctor.surroundings import Surroundings

NAME = "ascend-visibility"
LOOKS_AT = "ASCEND_RT_VISIBLE_DEVICES, against the devices that are there"
FOLLOWS = ("ascend-driver",)

_VARIABLE = "ASCEND_RT_VISIBLE_DEVICES"


def run(around: Surroundings) -> Iterator[Finding]:
    if not ascend.is_there(around):
        return
    there = sorted(ascend.device_files(around))
    told = around.environ.get(_VARIABLE)
    unset = Remedy(f"unset {_VARIABLE}", "in the shell that starts vLLM")
    if told is None:
        yield ok(f"{_VARIABLE} is not set: all {len(there)} devices are seen")
        return
    numbers = [number.strip() for number in told.split(",")]
    if not all(number.isdecimal() for number in numbers):
        yield problem(
            f"{_VARIABLE}={told!r} is no list of device numbers with commas between: no device is seen", unset, ABOUT
        )
    elif len(set(numbers)) < len(numbers):
        yield problem(f"{_VARIABLE}={told} names a device twice", unset, ABOUT)
    elif any(int(number) not in there for number in numbers):
        strange = ", ".join(number for number in numbers if int(number) not in there)
        here = ", ".join(map(str, there)) or "none"
        yield problem(f"{_VARIABLE}={told} names {strange}, and the devices here are {here}", unset, ABOUT)
    else:
        yield ok(f"{_VARIABLE}={told} of the devices {', '.join(map(str, there))}")
