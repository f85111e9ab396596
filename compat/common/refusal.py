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


def no_quantization(method: str) -> StartupRefused:
    """For a checkpoint or a `--quantization` that asks for quantised weights."""
    return StartupRefused(
        f"vllm-mindspore does not support quantized weights yet, and the model or --quantization asks for {method}: "
        "use a checkpoint in bfloat16, float16 or float32."
    )
