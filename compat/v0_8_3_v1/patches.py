"""The ledger of vLLM attributes that this adapter sets: one.

`vllm.v1.engine.core_client.BackgroundResources.__call__`

* What: closes the front end's sockets, and tells the thread that reads the engine's output to leave; ours does not wait for it.
* Why: that thread polls its shutdown socket for being writable as well, so the mere connection wakes it. Where it has left before the
  message is sent, `send` waits forever, and a program that used `LLM` never ends: on two busy cores nearly every time.
* Since: 0.8.3's V1, in every process that has an `LLM` whose engine runs in another.
* Removed by: vLLM 0.9, which polls for POLLIN only.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any, Callable

_MARK = "_vllm_mindspore"


def apply() -> None:
    """Set the attributes. Idempotent."""
    from vllm.v1.engine.core_client import BackgroundResources

    if not hasattr(BackgroundResources.__call__, _MARK):
        BackgroundResources.__call__ = _never_waiting(BackgroundResources.__call__)


def _never_waiting(original: Callable[[Any], None]) -> Callable[[Any], None]:
    import zmq

    def close(self: Any) -> None:
        path, self.shutdown_path = self.shutdown_path, None
        original(self)
        if path is not None:
            with self.ctx.socket(zmq.PAIR) as sender:
                sender.connect(path)
                with suppress(zmq.Again):  # nobody is there any more
                    sender.send(b"", zmq.NOBLOCK)

    setattr(close, _MARK, original)
    return close
