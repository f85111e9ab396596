"""The network interfaces that HCCL and its helpers are told to use. Nobody ran this on an NPU."""

from __future__ import annotations

import socket
from collections.abc import Iterator

from vllm_mindspore.cli.doctor import ascend
from vllm_mindspore.cli.doctor.finding import Finding, Remedy, note, ok, problem
from vllm_mindspore.cli.doctor.surroundings import Surroundings

NAME = "ascend-network"
LOOKS_AT = "the network interfaces that HCCL is told to use"
FOLLOWS = ()

_WHERE = "in the shell that starts vLLM"
_INTERFACES = ("HCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME", "TP_SOCKET_IFNAME")


def run(around: Surroundings) -> Iterator[Finding]:
    told = {name: around.environ[name] for name in (*_INTERFACES, "HCCL_IF_IP") if around.environ.get(name)}
    if not told:
        if len(ascend.device_files(around)) > 1:
            yield note(f"None of {', '.join(_INTERFACES)} is set: HCCL takes the first interface that it finds")
        return
    there = interfaces()
    for name, value in told.items():
        if name == "HCCL_IF_IP":
            if not _is_mine(value):
                yield problem(
                    f"HCCL_IF_IP={value} is no address of this machine", Remedy("unset HCCL_IF_IP", _WHERE), {"hccl"}
                )
                continue
        elif not _chosen(value, there):
            others = [interface for interface in there if interface != "lo"] or there
            use = Remedy(f"export {name}={others[0] if others else 'lo'}", _WHERE)
            yield problem(
                f"{name}={value} is no interface of this machine, which has {', '.join(there)}", use, {"hccl"}
            )
            continue
        yield ok(f"{name}={value} is of this machine")


def interfaces() -> list[str]:
    """Names of this machine's network interfaces."""
    return [name for _, name in socket.if_nameindex()]


def _chosen(value: str, there: list[str]) -> list[str]:
    """Interfaces that HCCL takes: names begin with one of a list; `=` wants the whole name, `^` in front means all others."""
    exact, other = value.lstrip("^").startswith("="), value.startswith("^")
    names = [name for name in value.lstrip("^=").split(",") if name]

    def named(interface: str) -> bool:
        return any(interface == name if exact else interface.startswith(name) for name in names)

    return [interface for interface in there if named(interface) != other]


def _is_mine(address: str) -> bool:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family) as probe:
            probe.bind((address, 0))
            return True
    except OSError:
        return False
