"""Our own view of the model that a vLLM configuration asks for."""

from __future__ import annotations

from typing import Any

from vllm_mindspore.models.config import ModelConfig as NetworkConfig


def network_config(config: Any) -> NetworkConfig:
    """Our own, neutral view of the model that a `VllmConfig` describes.

    Raises:
        UserError: a key is missing or illegal.
    """
    model = config.model_config
    source = getattr(model, "hf_config_path", None) or model.model  # --hf-config-path came with vLLM 0.8
    return NetworkConfig.from_hf(model.hf_config, dtype_name(config), source=str(source))


def dtype_name(config: Any) -> str:
    """The model's dtype as torch names it, without the prefix."""
    return str(config.model_config.dtype).rpartition(".")[2]
