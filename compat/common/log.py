"""Our log lines beside vLLM's."""

from __future__ import annotations

import logging


def follow_vllm() -> None:
    """Send this package's log lines where vLLM sends its own, in its format and from its level on. Idempotent."""
    theirs, ours = logging.getLogger("vllm"), logging.getLogger("vllm_mindspore")
    if theirs.handlers:
        ours.handlers = theirs.handlers
        ours.setLevel(theirs.level)
        ours.propagate = False
