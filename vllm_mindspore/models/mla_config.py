"""Multi-head latent attention, with the names of `config.json`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vllm_mindspore.models.config_reader import ConfigReader


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


def read_mla(reader: ConfigReader) -> MlaConfig:
    """Of a DeepSeek model.

    Raises:
        UserError: a key is missing or has a value that the network cannot follow.
    """
    if reader.get("attention_bias", False):
        raise reader.illegal("attention_bias", "false")
    nope, rope = reader.count("qk_nope_head_dim"), reader.count("qk_rope_head_dim")
    if rope % 2:
        raise reader.illegal("qk_rope_head_dim", "even")
    return MlaConfig(
        q_lora_rank=None if reader.get("q_lora_rank") is None else reader.count("q_lora_rank"),
        kv_lora_rank=reader.count("kv_lora_rank"),
        qk_nope_head_dim=nope,
        qk_rope_head_dim=rope,
        v_head_dim=reader.count("v_head_dim"),
        rope_interleave=bool(reader.get("rope_interleave", True)),
        scale=(nope + rope) ** -0.5 * _yarn_magnitude(reader.get("rope_scaling")) ** 2,
    )


def _yarn_magnitude(scaling: Any) -> float:
    """DeepSeek tempers the scores of a stretched context here, where YaRN does it in the tables of cosines and sines."""
    if not isinstance(scaling, Mapping):
        return 1.0
    weight, factor = scaling.get("mscale_all_dim"), scaling.get("factor", 1.0)
    return 0.1 * weight * math.log(factor) + 1.0 if weight and factor > 1 else 1.0
