"""The one attribute of vLLM 0.8.3 that we set for its V1 engine."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, Callable

from vllm_mindspore.compat.common.patches import Patch

PATCHES = (
    Patch(
        attribute="vllm.v1.engine.core_client.BackgroundResources.__call__",
        what="Closes the front end's sockets and tells the thread that reads the engine's output to leave; ours does not wait for it.",
        why="That thread polls its shutdown socket for being writable as well, so the mere connection wakes it. Where it has left before "
        "the message is sent, `send` waits forever, and a program that used `LLM` never ends: on two busy cores nearly every time.",
        since="0.1.0",
        removed_by="vLLM 0.9, which polls for POLLIN only.",
    ),
)

_MARK = "_vllm_mindspore"
_LINGER_MS = 200


def apply() -> None:
    """Set every attribute of the ledger. Idempotent."""
    from vllm.v1.engine.core_client import BackgroundResources

    if not hasattr(BackgroundResources.__call__, _MARK):
        BackgroundResources.__call__ = _never_waiting(BackgroundResources.__call__)


def _never_waiting(original: Callable[[Any], None]) -> Callable[[Any], None]:
    import zmq

    def close(self: Any) -> None:
        path, self.shutdown_path = self.shutdown_path, None
        original(self)
        if path is not None:
            sender = self.ctx.socket(zmq.PAIR)
            sender.connect(path)
            with suppress(zmq.Again):  # nobody is there any more
                sender.send(b"", zmq.NOBLOCK)
            sender.close(linger=_LINGER_MS)  # or the end of the context would wait for a reader that has left

    setattr(close, _MARK, original)
    return close
