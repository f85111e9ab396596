"""Tables of rotary position embeddings (Su et al., RoFormer, 2021) and of the ways to stretch them.

The formulas are those of Hugging Face's `modeling_rope_utils`, which the published checkpoints were made with.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from vllm_mindspore.models.config import ModelConfig

Float32Array = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]


def rope_tables(config: ModelConfig, num_positions: int) -> tuple[Float32Array, Float32Array]:
    """Cosines and sines `[num_positions, rope_dim]`; each row holds its rope_dim / 2 values twice."""
    rope, dim = config.rope, config.rope_dim
    scale = 1.0
    positions = np.arange(num_positions, dtype=np.float64)[:, None]
    if rope.kind == "dynamic":
        angles = positions * _dynamic_frequencies(config, num_positions)
    else:
        frequencies = _frequencies(rope.theta, dim)
        if rope.kind == "linear":
            frequencies = frequencies / rope.parameters["factor"]
        elif rope.kind == "llama3":
            frequencies = _llama3(frequencies, rope.parameters)
        elif rope.kind == "yarn":
            frequencies, scale = _yarn(config)
        angles = positions * frequencies
    angles = np.concatenate([angles, angles], axis=1)
    return (np.cos(angles) * scale).astype(np.float32), (np.sin(angles) * scale).astype(np.float32)


def _frequencies(theta: float, dim: int) -> Float64Array:
    return np.asarray(1.0 / theta ** (np.arange(0, dim, 2, dtype=np.float64) / dim))


def _dynamic_frequencies(config: ModelConfig, num_positions: int) -> Float64Array:
    """`[num_positions, dim / 2]`: NTK scaling whose base grows with the sequence.

    Position p gets the frequencies of a sequence of p + 1 tokens, as it does when Hugging Face generates token by token. So a
    table does for all sequences, and a token's key does not depend on how its prompt was cut into steps. (A prompt beyond the
    original length that is computed at once gets the frequencies of its whole length at each position there.)
    """
    dim, factor = config.rope_dim, config.rope.parameters["factor"]
    original = config.max_position_embeddings
    lengths = np.maximum(np.arange(1, num_positions + 1, dtype=np.float64), original)
    bases = config.rope.theta * (factor * lengths / original - (factor - 1)) ** (dim / max(dim - 2, 1))
    return np.asarray(1.0 / bases[:, None] ** (np.arange(0, dim, 2, dtype=np.float64) / dim))


def _llama3(frequencies: Float64Array, parameters: Mapping[str, Any]) -> Float64Array:
    """Llama 3.1: long waves are stretched, short ones kept, those between interpolated."""
    factor = parameters["factor"]
    low, high = parameters["low_freq_factor"], parameters["high_freq_factor"]
    turns = parameters["original_max_position_embeddings"] * frequencies / (2 * math.pi)  # in the original context
    smooth = (turns - low) / (high - low)
    between = (1 - smooth) * frequencies / factor + smooth * frequencies
    return np.where(turns < low, frequencies / factor, np.where(turns > high, frequencies, between))


def _yarn(config: ModelConfig) -> tuple[Float64Array, float]:
    """YaRN (Peng et al., 2023): frequencies and the factor of the attention's temperature.

    `factor` counts if it is given; if it is not, it is the ratio of the maximum length to the original one.
    """
    parameters, dim, theta = config.rope.parameters, config.rope_dim, config.rope.theta
    original = parameters.get("original_max_position_embeddings", config.max_position_embeddings)
    factor = parameters.get("factor", config.max_position_embeddings / original)

    def magnitude(weight: float) -> float:
        return 1.0 if factor <= 1 else 0.1 * weight * math.log(factor) + 1.0

    scale = parameters.get("attention_factor")
    if scale is None:
        top, bottom = parameters.get("mscale"), parameters.get("mscale_all_dim")
        scale = magnitude(top) / magnitude(bottom) if top and bottom else magnitude(1.0)

    def dimension(turns: float) -> float:
        """Which dimension makes so many turns within the original context."""
        return dim * math.log(original / (turns * 2 * math.pi)) / (2 * math.log(theta))

    low = max(math.floor(dimension(parameters.get("beta_fast") or 32)), 0)
    high = min(math.ceil(dimension(parameters.get("beta_slow") or 1)), dim - 1)
    ramp = np.clip((np.arange(dim // 2) - low) / (high - low if high != low else 0.001), 0, 1)
    frequencies = _frequencies(theta, dim)
    return frequencies / factor * ramp + frequencies * (1 - ramp), float(scale)
