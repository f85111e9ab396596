"""The one attribute of vLLM 0.6.6 that we set. Later releases have a door for platforms, and need none."""

from __future__ import annotations

from vllm_mindspore.compat.common.patches import Patch

PATCHES = (
    Patch(
        attribute="vllm.platforms.current_platform.__class__",
        what="The one instance of a platform that vLLM made gets our class. Every module that imported the instance sees ours.",
        why="vLLM 0.6.6 looks for seven kinds of device and has no entry point for an eighth.",
        since="0.1.0",
        removed_by="vLLM 0.7.0, whose entry point vllm.platform_plugins does it.",
    ),
)


def apply() -> None:
    """Set every attribute of the ledger. Idempotent."""
    from vllm import platforms

    from vllm_mindspore.compat.v0_6_6.platform import MindSporePlatform

    platforms.current_platform.__class__ = MindSporePlatform
