"""How a start-up is refused."""

from __future__ import annotations


class StartupRefused(Exception):
    """What was asked for cannot be done; the message says it in one sentence a line, with the flag and the remedy.

    Not a `ValueError`: vLLM checks its configuration inside pydantic, which would wrap a `ValueError` into a validation error
    that prints the whole configuration.
    """


def unsupported(what: str, remedy: str) -> str:
    """The sentence for what is not there yet."""
    return f"vllm-mindspore does not support {what} yet: {remedy}."
