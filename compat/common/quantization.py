"""What `--quantization` may be. The names are vLLM's."""

from __future__ import annotations

from vllm_mindspore.compat.common.refusal import StartupRefused
from vllm_mindspore.models.stored_weights import METHOD

INT8 = "tpu_int8"
"""vLLM's method that makes int8 weights of a float checkpoint as it is loaded, symmetric, with a scale for each output feature."""


def check(method: str) -> None:
    """Raise if a checkpoint or `--quantization` asks for a method that we do not have.

    Which checkpoints of METHOD can be read, `check_stored_weights` says.

    Raises:
        StartupRefused: it does.
    """
    if method not in (INT8, METHOD):
        raise StartupRefused(
            f"vllm-mindspore does not support this kind of quantized weights yet, and the model or --quantization asks for {method}: "
            f"use a checkpoint in bfloat16, float16 or float32, which --quantization {INT8} brings to int8, or one of {METHOD} in int8."
        )


def weight_dtype(method: str | None) -> str | None:
    """Of the weights, if it is not the model's dtype."""
    return "int8" if method == INT8 else None
