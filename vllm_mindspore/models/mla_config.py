"""Multi-head latent attention, with the names of `config.json`."""

from __future__ import annotations

import math
from dataclasses import dataclass

from vllm_mindspore.models.config_reader import ConfigReader
from vllm_mindspore.models.rope_config import RopeConfig


@dataclass(frozen=True)
class MlaConfig:
    """Multi-head latent attention (DeepSeek-V2, 2024)."""

    q_lora_rank: int | None
    """Of the queries' own compression, if they have one."""
    kv_lora_rank: int
    """Floats of the latent that a token's keys and values of all heads are made of."""
    qk_nope_head_dim: int
    qk_rope_head_dim: int
    v_head_dim: int
    rope_interleave: bool
    """Whether the checkpoint rotates float 2 i with float 2 i + 1 (DeepSeek's form), not float i with float i + half."""
    scale: float
    """Of the attention's scores."""


def read_mla(reader: ConfigReader, rope: RopeConfig) -> MlaConfig:
    """Of a DeepSeek model.

    Raises:
        UserError: a key is missing or has a value that the network cannot follow.
    """
    if reader.flag("attention_bias"):
        raise reader.illegal("attention_bias", "false")
    nope, turned = reader.count("qk_nope_head_dim"), reader.count("qk_rope_head_dim")
    if turned % 2:
        raise reader.illegal("qk_rope_head_dim", "even")
    return MlaConfig(
        q_lora_rank=None if reader.get("q_lora_rank") is None else reader.count("q_lora_rank"),
        kv_lora_rank=reader.count("kv_lora_rank"),
        qk_nope_head_dim=nope,
        qk_rope_head_dim=turned,
        v_head_dim=reader.count("v_head_dim"),
        rope_interleave=reader.flag("rope_interleave", True),
        scale=(nope + turned) ** -0.5 * _yarn_magnitude(rope) ** 2,
    )


def _yarn_magnitude(rope: RopeConfig) -> float:
    """DeepSeek tempers the scores of a stretched context here, where YaRN does it in the tables of cosines and sines."""
    weight, factor = rope.parameters.get("mscale_all_dim"), rope.parameters.get("factor", 1.0)
    return 0.1 * weight * math.log(factor) + 1.0 if weight and factor > 1 else 1.0
