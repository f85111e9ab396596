"""What a network needs to know of a checkpoint's configuration. Imports neither MindSpore nor torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vllm_mindspore.errors import UserError
from vllm_mindspore.models.config_reader import ConfigReader
from vllm_mindspore.models.mla_config import MlaConfig, read_mla
from vllm_mindspore.models.moe_config import MoeConfig, read_moe
from vllm_mindspore.models.registry import supported_architectures
from vllm_mindspore.models.rope_config import RopeConfig, read_rope
from vllm_mindspore.models.stored_weights import check_stored_weights

_DTYPES = ("bfloat16", "float16", "float32")
_NOT_FOLLOWED = {
    "hidden_act": "silu",
    "partial_rotary_factor": 1.0,
    "is_causal": True,
    "logit_scale": 1.0,
    "attn_logit_softcapping": None,
    "final_logit_softcapping": None,
    "dual_chunk_attention_config": None,
}
"""What changes the answers in some vLLM or transformers and in no network here, and the value that changes nothing."""
_ALWAYS_WINDOWED = ("LlamaForCausalLM", "MistralForCausalLM", "MixtralForCausalLM")
"""Whose `sliding_window` counts without `use_sliding_window`."""


@dataclass(frozen=True)
class ModelConfig:
    """A decoder: Llama, Mistral, Qwen2, Qwen3; Mixtral, Qwen2-MoE and Qwen3-MoE, which have experts; DeepSeek, which has latent attention as well."""

    architecture: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    """1 with latent attention, whose heads share one key."""
    head_dim: int
    """Floats of a key; with latent attention, of the latent and the rotated key."""
    rms_norm_eps: float
    rope: RopeConfig
    max_position_embeddings: int
    tie_word_embeddings: bool
    qkv_bias: bool
    o_bias: bool
    mlp_bias: bool
    qk_norm: bool
    """Queries and keys are normalised head by head (Qwen3)."""
    sliding_window: tuple[int, ...]
    """For each layer, how many positions a token sees, its own included; 0 for all."""
    dtype: str
    """Of weights and KV cache, by its torch name."""
    mla: MlaConfig | None = None
    """Of latent attention; None for attention with keys and values of their own."""
    moe: MoeConfig | None = None
    """Of layers with experts, if there are any."""
    num_draft_layers: int = 0
    """Layers for multi-token prediction, which a checkpoint holds behind the network's own."""

    @property
    def rope_dim(self) -> int:
        """Floats of a head that are rotated."""
        return self.mla.qk_rope_head_dim if self.mla else self.head_dim

    @property
    def cache_widths(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """KV heads and floats of each in the two caches of a layer: of keys and values, or of latents and rotated keys."""
        if self.mla:
            return (1, self.mla.kv_lora_rank), (1, self.mla.qk_rope_head_dim)
        return (self.num_kv_heads, self.head_dim), (self.num_kv_heads, self.head_dim)

    @classmethod
    def from_hf(cls, config: Any, dtype: str, source: str | Path) -> ModelConfig:
        """Read a Hugging Face configuration.

        Args:
            config: a `transformers.PretrainedConfig` or the dictionary of a `config.json`.
            dtype: bfloat16, float16 or float32.
            source: the checkpoint that it belongs to, for messages; if it is a folder, its `config.json` is asked for
                the keys that have no sensible default.

        Raises:
            UserError: a key is missing or has a value that no network here can follow.
        """
        reader = ConfigReader(config, Path(source))
        architectures = reader.get("architectures") or []
        architecture = next((name for name in architectures if name in supported_architectures()), None)
        if architecture is None:
            raise reader.illegal("architectures", f"one of {', '.join(supported_architectures())}")
        if dtype not in _DTYPES:
            raise UserError(f"{dtype} is no dtype that the networks can have: choose {', '.join(_DTYPES)}.")
        reader.refuse_unless(_NOT_FOLLOWED)
        check_stored_weights(reader)
        num_layers, hidden_size = reader.count("num_hidden_layers"), reader.count("hidden_size")
        num_heads = reader.count("num_attention_heads")
        rope = read_rope(reader)
        mla = read_mla(reader, rope) if architecture.startswith("Deepseek") else None
        num_kv_heads, head_dim = _heads(reader, num_heads, hidden_size, mla)
        may_have_biases = architecture in ("LlamaForCausalLM", "Qwen3ForCausalLM", "Qwen3MoeForCausalLM")
        attention_bias = may_have_biases and reader.flag("attention_bias")
        qkv_bias = {
            "Qwen2ForCausalLM": True,
            "Qwen2MoeForCausalLM": reader.flag("qkv_bias", True),
        }.get(architecture, attention_bias)
        return cls(
            architecture=architecture,
            vocab_size=reader.count("vocab_size"),
            hidden_size=hidden_size,
            intermediate_size=reader.count("intermediate_size"),
            num_layers=num_layers,
            num_heads=num_heads,
            num_kv_heads=num_kv_heads,
            head_dim=head_dim,
            rms_norm_eps=reader.number("rms_norm_eps", 1e-6),
            rope=rope,
            max_position_embeddings=reader.count("max_position_embeddings"),
            tie_word_embeddings=reader.flag("tie_word_embeddings"),
            qkv_bias=qkv_bias,
            o_bias=attention_bias,
            mlp_bias=architecture == "LlamaForCausalLM" and reader.flag("mlp_bias"),
            qk_norm=architecture in ("Qwen3ForCausalLM", "Qwen3MoeForCausalLM"),
            sliding_window=_sliding_window(reader, architecture, num_layers),
            dtype=dtype,
            mla=mla,
            moe=read_moe(reader, architecture, num_layers),
            num_draft_layers=reader.index("num_nextn_predict_layers") if mla else 0,
        )


def _heads(reader: ConfigReader, num_heads: int, hidden_size: int, mla: MlaConfig | None) -> tuple[int, int]:
    """KV heads, and the floats of a key."""
    if mla:
        return 1, mla.kv_lora_rank + mla.qk_rope_head_dim
    num_kv_heads = num_heads if reader.get("num_key_value_heads") is None else reader.count("num_key_value_heads")
    if num_heads % num_kv_heads:
        raise reader.illegal("num_key_value_heads", f"a divisor of num_attention_heads, which is {num_heads}")
    if reader.get("head_dim") is not None:
        head_dim = reader.count("head_dim")
    elif hidden_size % num_heads:
        raise reader.illegal("num_attention_heads", f"a divisor of hidden_size, which is {hidden_size}")
    else:
        head_dim = hidden_size // num_heads
    if head_dim % 2:
        raise reader.illegal("head_dim", "even")
    return num_kv_heads, head_dim


def _sliding_window(reader: ConfigReader, architecture: str, num_layers: int) -> tuple[int, ...]:
    use = architecture in _ALWAYS_WINDOWED or reader.flag("use_sliding_window")
    if not use or reader.get("sliding_window") is None:
        return (0,) * num_layers
    if architecture == "Qwen2MoeForCausalLM":
        raise reader.illegal("use_sliding_window", "false")
    window = reader.count("sliding_window")
    if architecture in (*_ALWAYS_WINDOWED, "Qwen3MoeForCausalLM"):
        return (window,) * num_layers
    kinds = reader.get("layer_types")
    if kinds is None:  # before transformers 4.53
        first = int(reader.get("max_window_layers", num_layers))
        return tuple(window if layer >= first else 0 for layer in range(num_layers))
    if len(kinds) != num_layers or set(kinds) - {"full_attention", "sliding_attention"}:
        raise reader.illegal("layer_types", f"full_attention or sliding_attention for each of {num_layers} layers")
    return tuple(window if kind == "sliding_attention" else 0 for kind in kinds)
