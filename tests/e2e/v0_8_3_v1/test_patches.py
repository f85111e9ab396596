"""The attribute of vLLM that this adapter sets is still needed, and does what its ledger says."""

from __future__ import annotations

import threading
import time
from importlib import import_module
from typing import Any, Callable

import pytest

pytestmark = pytest.mark.slow

LEDGER = "vllm_mindspore.compat.v0_8_3_v1.patches"


def test_shutting_down_does_not_wait_for_a_thread_that_has_left() -> None:
    from vllm.v1.engine.core_client import BackgroundResources

    import_module(LEDGER).apply()
    patched = BackgroundResources.__call__
    import_module(LEDGER).apply()
    assert BackgroundResources.__call__ is patched, "applied twice"
    assert ends(patched)
    assert not ends(patched._vllm_mindspore), "vLLM's own ends as well: the patch is no longer needed"


def ends(close: Callable[[Any], None]) -> bool:
    """Whether closing comes to an end although the reading thread leaves as soon as it is connected to, which polling allows."""
    import zmq
    from vllm.v1.engine.core_client import BackgroundResources

    class SlowContext(zmq.Context):
        def socket(self, *arguments: Any, **options: Any) -> Any:
            socket = super().socket(*arguments, **options)
            connect = socket.connect
            object.__setattr__(socket, "connect", lambda path: (connect(path), time.sleep(0.5)))
            return socket

    context = SlowContext()
    path = "inproc://shutdown"
    bound = threading.Event()

    def reading() -> None:
        with zmq.Context.socket(context, zmq.PAIR) as socket:
            socket.bind(path)
            poller = zmq.Poller()
            poller.register(socket)  # as vLLM 0.8.3 does: for writing as well
            bound.set()
            poller.poll()

    threading.Thread(target=reading, daemon=True).start()
    bound.wait(5)
    resources = BackgroundResources(ctx=context, shutdown_path=path)
    closing = threading.Thread(target=close, args=(resources,), daemon=True)
    closing.start()
    closing.join(3)
    return not closing.is_alive()
