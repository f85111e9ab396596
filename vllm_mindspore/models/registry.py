"""Which architectures there are networks for. Imports no MindSpore, so that vLLM's front end may ask."""

from __future__ import annotations

from importlib import import_module
from typing import Any

_DECODER = "vllm_mindspore.models.decoder:Decoder"

_NETWORKS = {
    "LlamaForCausalLM": _DECODER,
    "MistralForCausalLM": _DECODER,
    "Qwen2ForCausalLM": _DECODER,
    "Qwen3ForCausalLM": _DECODER,
    "DeepseekV2ForCausalLM": _DECODER,
    "DeepseekV3ForCausalLM": _DECODER,
    "Qwen2MoeForCausalLM": _DECODER,
    "Qwen3MoeForCausalLM": _DECODER,
    "MixtralForCausalLM": _DECODER,
}
"""Hugging Face architecture -> module and class of the network. What sets them apart stands in `ModelConfig`."""


def supported_architectures() -> tuple[str, ...]:
    """Names as they stand under `architectures` in a checkpoint's `config.json`."""
    return tuple(_NETWORKS)


def model_class(architecture: str) -> Any:
    """The network's class, a Cell; imports MindSpore."""
    module, _, name = _NETWORKS[architecture].partition(":")
    return getattr(import_module(module), name)
