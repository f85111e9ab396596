"""Our own view of the model that a vLLM configuration asks for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllm_mindspore.models.config import ModelConfig as NetworkConfig

if TYPE_CHECKING:
    from vllm.config import VllmConfig


def network_config(config: VllmConfig) -> NetworkConfig:
    """Our own, neutral view of the model's configuration.

    Raises:
        UserError: a key is missing or illegal.
    """
    model = config.model_config
    return NetworkConfig.from_hf(model.hf_config, dtype_name(config), source=str(model.hf_config_path or model.model))


def dtype_name(config: VllmConfig) -> str:
    """The model's dtype as torch names it, without the prefix."""
    return str(config.model_config.dtype).rpartition(".")[2]
