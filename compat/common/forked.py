"""What an engine's process that was forked must not take from its parent."""

from __future__ import annotations

import multiprocessing
import os
import socket
import stat
import sys
from contextlib import suppress
from multiprocessing.context import ForkProcess

import torch

VLLM_COMMAND = "vllm.entrypoints.cli.main"
"""The module that is loaded where the `vllm` command runs, and in processes forked from it."""


def leave_the_parents() -> None:
    """In a forked process, do without the parent's threads and sockets; elsewhere nothing.

    If the parent has used torch's OpenMP threads, the first parallel operation of the child waits for them forever. And the `vllm` command binds
    its server's port before it starts the engine: held here, it would stay taken if the server were killed, and accept what nobody answers.
    """
    if isinstance(multiprocessing.current_process(), ForkProcess):
        torch.set_num_threads(1)
        if VLLM_COMMAND in sys.modules:  # in a program of the user's own, a port may be this process's
            _leave_ports()


def _leave_ports() -> None:
    """Put nothing in the place of each TCP socket that is bound and not connected; its number stays taken, as some object may close it one day."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in map(int, os.listdir("/proc/self/fd")):
        with suppress(OSError):  # the folder's own number is gone
            if stat.S_ISSOCK(os.fstat(number).st_mode) and _holds_a_port(number):
                os.dup2(nothing, number)
    os.close(nothing)


def _holds_a_port(number: int) -> bool:
    with socket.socket(fileno=os.dup(number)) as found:
        if found.type != socket.SOCK_STREAM or found.family not in (socket.AF_INET, socket.AF_INET6):
            return False
        try:
            found.getpeername()
        except OSError:  # not connected
            return bool(found.getsockname()[1])
        return False
