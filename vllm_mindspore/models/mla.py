"""Multi-head latent attention (DeepSeek-V2, 2024), absorbed.

What is cached of a token is one latent, from which `kv_b_proj` makes the keys and values of all heads, and one rotated key that they share. The
keys' half of `kv_b_proj` is applied to the query instead, and the values' half to the attention's output, so that attention runs
on the latents as they lie in the cache. Decode is thereby as cheap as it can be. Prefill could do with a third of the arithmetic of
attention if it made the keys and values of all cached tokens first; but then a token's result would depend on whether it was
prefilled or decoded, and a preempted request would not answer as an undisturbed one.
"""

from __future__ import annotations

import numpy as np
from mindspore import Parameter, Tensor, nn
from mindspore.ops import depend

from vllm_mindspore.kernels import ops
from vllm_mindspore.models.config import ModelConfig
from vllm_mindspore.models.mla_config import MlaConfig
from vllm_mindspore.models.weights import Weights

_LORA_EPSILON = 1e-6
"""Of the norms of compressed queries and of latents; `rms_norm_eps` is for the others."""


class LatentAttention(nn.Cell):
    """Attention of one layer; called as `decoder.Attention` is."""

    def __init__(self, config: ModelConfig, layer: int, weights: Weights, cos: Parameter, sin: Parameter) -> None:
        super().__init__(auto_prefix=False)
        mla = config.mla
        assert mla is not None
        name, heads, hidden = f"model.layers.{layer}.self_attn", config.num_heads, config.hidden_size
        nope, rope, latent = mla.qk_nope_head_dim, mla.qk_rope_head_dim, mla.kv_lora_rank
        self.name = name
        self.cos, self.sin = cos, sin
        self.has_query_lora = mla.q_lora_rank is not None

        # The queries' parts that are not rotated come first, those that are follow, so that each is an output of its own.
        query_order, query_widths = _query_order(mla, heads), (heads * nope, heads * rope)
        kv_order = np.concatenate([np.arange(latent), latent + _rope_order(mla)])
        down = f"{name}.kv_a_proj_with_mqa.weight"
        if mla.q_lora_rank is None:
            first, rows, order = f"{name}.q_proj.weight", heads * (nope + rope), query_order
            self.down = ops.MatMul((*query_widths, latent, rope))
        else:
            first, rows, order = f"{name}.q_a_proj.weight", mla.q_lora_rank, None
            self.down = ops.MatMul((mla.q_lora_rank, latent, rope))
            gamma = f"{name}.q_a_layernorm.weight"
            self.q_gamma = ops.parameter(weights.vector([gamma], [mla.q_lora_rank]), gamma)
            self.q_up_weight = ops.parameter(
                weights.matrix(
                    [f"{name}.q_b_proj.weight"], [heads * (nope + rope)], mla.q_lora_rank, order=[query_order]
                ),
                f"{name}.q_b_proj.weight",
            )
            self.q_up = ops.MatMul(query_widths)
        self.down_weight = ops.parameter(
            weights.matrix([first, down], [rows, latent + rope], hidden, order=[order, kv_order]), f"{name}.down.weight"
        )
        gamma = f"{name}.kv_a_layernorm.weight"
        self.latent_gamma = ops.parameter(weights.vector([gamma], [latent]), gamma)
        up, rows = f"{name}.kv_b_proj.weight", nope + mla.v_head_dim
        self.key_weight = ops.parameter(
            weights.heads(up, heads, rows, latent, slice(nope), transpose=True), f"{name}.kv_b.keys"
        )
        self.value_weight = ops.parameter(
            weights.heads(up, heads, rows, latent, slice(nope, rows)), f"{name}.kv_b.values"
        )
        self.o_weight = ops.parameter(
            weights.matrix([f"{name}.o_proj.weight"], [hidden], heads * mla.v_head_dim), f"{name}.o_proj.weight"
        )

        self.norm = ops.RmsNorm(_LORA_EPSILON)
        self.rotate = ops.ApplyRotaryPosEmb(rope)
        self.write_cache = ops.CacheLatents()
        self.absorb_keys = ops.TransposeBatchMatmulTranspose(heads, latent)
        self.attend = ops.Mla(mla.scale)
        self.make_values = ops.TransposeBatchMatmulTranspose(heads, mla.v_head_dim)
        self.o_proj = ops.MatMul([hidden])

    def set_kv_cache(self, latents: Tensor, turned_keys: Tensor) -> None:
        self.latent_cache = ops.parameter(latents, f"{self.name}.latent_cache")
        self.rope_cache = ops.parameter(turned_keys, f"{self.name}.rope_cache")

    def construct(
        self,
        x: Tensor,
        position_ids: Tensor,
        slot_mapping: Tensor,
        block_tables: Tensor,
        context_lens: Tensor,
        q_seq_lens: Tensor,
        num_tokens: Tensor,
        num_seqs: Tensor,
    ) -> Tensor:
        if self.has_query_lora:
            compressed, latent, key_rope = self.down(x, self.down_weight, num_tokens)
            compressed = self.norm(compressed, self.q_gamma, num_tokens)
            query, query_rope = self.q_up(compressed, self.q_up_weight, num_tokens)
        else:
            query, query_rope, latent, key_rope = self.down(x, self.down_weight, num_tokens)
        latent = self.norm(latent, self.latent_gamma, num_tokens)
        query_rope, key_rope = self.rotate(query_rope, key_rope, self.cos, self.sin, position_ids, num_tokens)
        written = self.write_cache(latent, key_rope, self.latent_cache, self.rope_cache, slot_mapping, num_tokens)
        query = depend(self.absorb_keys(query, self.key_weight, num_tokens), written)
        out = self.attend(
            query, query_rope, self.latent_cache, self.rope_cache, block_tables, context_lens, q_seq_lens, num_seqs
        )
        return self.o_proj(self.make_values(out, self.value_weight, num_tokens), self.o_weight, num_tokens)


def _rope_order(mla: MlaConfig) -> np.ndarray:
    """Rows of a rotated part in the order of `ApplyRotaryPosEmb`, which rotates float i with float i + half."""
    rows = np.arange(mla.qk_rope_head_dim)
    return rows.reshape(-1, 2).T.ravel() if mla.rope_interleave else rows


def _query_order(mla: MlaConfig, heads: int) -> np.ndarray:
    """Rows of the query projection: what is not rotated of all heads, then what is."""
    rows = np.arange(heads * (mla.qk_nope_head_dim + mla.qk_rope_head_dim)).reshape(heads, -1)
    nope, rope = rows[:, : mla.qk_nope_head_dim], rows[:, mla.qk_nope_head_dim :]
    return np.concatenate([nope.ravel(), rope[:, _rope_order(mla)].ravel()])
