"""The decoder: Llama (Touvron et al., 2023), and what others have in place of its parts, told apart by `ModelConfig`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from mindspore import Parameter, Tensor, nn
from mindspore.ops import depend

from vllm_mindspore.kernels import ops
from vllm_mindspore.models.config import ModelConfig
from vllm_mindspore.models.experts import MixtureOfExperts
from vllm_mindspore.models.mla import LatentAttention
from vllm_mindspore.models.mlp import Mlp
from vllm_mindspore.models.rope import rope_tables
from vllm_mindspore.models.weights import Weights


class Attention(nn.Cell):
    """Grouped-query attention over the paged cache of one layer."""

    def __init__(self, config: ModelConfig, layer: int, weights: Weights, cos: Parameter, sin: Parameter) -> None:
        super().__init__(auto_prefix=False)
        name, dim = f"model.layers.{layer}.self_attn", config.head_dim
        heads, kv_heads = config.num_heads, config.num_kv_heads
        widths = (heads * dim, kv_heads * dim, kv_heads * dim)
        self.config = config
        self.name = name
        self.qkv_bias, self.o_bias, self.qk_norm = config.qkv_bias, config.o_bias, config.qk_norm
        self.cos, self.sin = cos, sin

        projections = [f"{name}.{part}_proj" for part in "qkv"]
        self.qkv_weight = ops.parameter(
            weights.matrix([f"{p}.weight" for p in projections], widths, config.hidden_size), f"{name}.qkv.weight"
        )
        if config.qkv_bias:
            self.qkv_bias_weight = ops.parameter(
                weights.vector([f"{p}.bias" for p in projections], widths), f"{name}.qkv.bias"
            )
        self.o_weight = ops.parameter(
            weights.matrix([f"{name}.o_proj.weight"], [config.hidden_size], widths[0]), f"{name}.o_proj.weight"
        )
        if config.o_bias:
            self.o_bias_weight = ops.parameter(
                weights.vector([f"{name}.o_proj.bias"], [config.hidden_size]), f"{name}.o_proj.bias"
            )
        if config.qk_norm:
            self.q_gamma = ops.parameter(weights.vector([f"{name}.q_norm.weight"], [dim]), f"{name}.q_norm.weight")
            self.k_gamma = ops.parameter(weights.vector([f"{name}.k_norm.weight"], [dim]), f"{name}.k_norm.weight")
            self.head_norm = ops.RmsNorm(config.rms_norm_eps)

        self.qkv_proj = ops.MatMul(widths, has_bias=config.qkv_bias)
        self.rotate = ops.ApplyRotaryPosEmb(dim)
        self.write_cache = ops.ReshapeAndCache()
        self.attend = ops.PagedAttention(heads, dim**-0.5, kv_heads, config.sliding_window[layer])
        self.o_proj = ops.MatMul([config.hidden_size], has_bias=config.o_bias)

    def set_kv_cache(self, keys: Tensor, values: Tensor) -> None:
        self.key_cache = ops.parameter(keys, f"{self.name}.key_cache")
        self.value_cache = ops.parameter(values, f"{self.name}.value_cache")

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
        if self.qkv_bias:
            query, key, value = self.qkv_proj(x, self.qkv_weight, self.qkv_bias_weight, num_tokens)
        else:
            query, key, value = self.qkv_proj(x, self.qkv_weight, num_tokens)
        if self.qk_norm:
            query = self.head_norm(query, self.q_gamma, num_tokens)
            key = self.head_norm(key, self.k_gamma, num_tokens)
        query, key = self.rotate(query, key, self.cos, self.sin, position_ids, num_tokens)
        written = self.write_cache(key, value, self.key_cache, self.value_cache, slot_mapping, num_tokens)
        query = depend(query, written)
        out = self.attend(query, self.key_cache, self.value_cache, block_tables, context_lens, q_seq_lens, num_seqs)
        if self.o_bias:
            return self.o_proj(out, self.o_weight, self.o_bias_weight, num_tokens)
        return self.o_proj(out, self.o_weight, num_tokens)


class DecoderLayer(nn.Cell):
    """Attention and MLP, each followed by the sum with the residual stream and the norm that comes next."""

    def __init__(self, config: ModelConfig, layer: int, weights: Weights, cos: Parameter, sin: Parameter) -> None:
        super().__init__(auto_prefix=False)
        is_last = layer + 1 == config.num_layers
        middle = f"model.layers.{layer}.post_attention_layernorm.weight"
        following = "model.norm.weight" if is_last else f"model.layers.{layer + 1}.input_layernorm.weight"
        self.attention = (LatentAttention if config.mla else Attention)(config, layer, weights, cos, sin)
        self.middle_gamma = ops.parameter(weights.vector([middle], [config.hidden_size]), middle)
        if config.moe and config.moe.layers[layer]:
            self.mlp = MixtureOfExperts(config, layer, weights)
        else:
            self.mlp = Mlp(f"model.layers.{layer}.mlp", config.intermediate_size, config, weights)
        self.following_gamma = ops.parameter(weights.vector([following], [config.hidden_size]), following)
        self.add_norm = ops.AddRmsNorm(config.rms_norm_eps)

    def construct(
        self,
        x: Tensor,
        residual: Tensor,
        position_ids: Tensor,
        slot_mapping: Tensor,
        block_tables: Tensor,
        context_lens: Tensor,
        q_seq_lens: Tensor,
        num_tokens: Tensor,
        num_seqs: Tensor,
    ) -> tuple[Tensor, Tensor]:
        x = self.attention(x, position_ids, slot_mapping, block_tables, context_lens, q_seq_lens, num_tokens, num_seqs)
        x, residual = self.add_norm(x, residual, self.middle_gamma, num_tokens)
        return self.add_norm(self.mlp(x, num_tokens), residual, self.following_gamma, num_tokens)


class LmHead(nn.Cell):
    """Of hidden states: `(hidden_states [L, hidden_size], num_logits [1]) -> (logits [L, vocab_size], greedy token ids [L])`."""

    def __init__(self, config: ModelConfig, weight: Parameter) -> None:
        super().__init__(auto_prefix=False)
        self.weight = weight
        self.project = ops.MatMulArgMax(config.vocab_size)

    def construct(self, hidden_states: Tensor, num_logits: Tensor) -> tuple[Tensor, Tensor]:
        return self.project(hidden_states, self.weight, num_logits)


class Decoder(nn.Cell):
    """The network. Its inputs and outputs are those of `engine.runner.ModelRunner`."""

    def __init__(self, config: ModelConfig, weights: Weights, max_position: int) -> None:
        """Make the network with its weights in place.

        Args:
            config: of the checkpoint.
            weights: the checkpoint; asked for each weight once.
            max_position: how many positions a sequence may have.
        """
        super().__init__(auto_prefix=False)
        self.config = config
        vocabulary = [config.vocab_size], config.hidden_size
        embedding = "model.embed_tokens.weight"
        self.embedding_weight = ops.parameter(weights.matrix([embedding], *vocabulary), embedding)
        first = "model.layers.0.input_layernorm.weight"
        self.first_gamma = ops.parameter(weights.vector([first], [config.hidden_size]), first)
        cos, sin = (
            ops.parameter(Tensor.from_numpy(table), name)
            for name, table in zip(("cos", "sin"), rope_tables(config, max_position))
        )
        self.layers = nn.CellList(
            [DecoderLayer(config, layer, weights, cos, sin) for layer in range(config.num_layers)], auto_prefix=False
        )
        head = (
            self.embedding_weight
            if config.tie_word_embeddings
            else ops.parameter(weights.matrix(["lm_head.weight"], *vocabulary), "lm_head.weight")
        )
        self.lm_head_cell = LmHead(config, head)
        self.embed = ops.Embedding(config.hidden_size)
        self.first_norm = ops.RmsNorm(config.rms_norm_eps)
        self.gather = ops.Gather()
        self.set_train(False)

    def set_kv_cache(self, caches: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Give each layer its two caches `[num_blocks, block_size, kv_head_num, head_dim]`. Before the first step."""
        for layer, pair in zip(self.layers, caches):
            layer.attention.set_kv_cache(*pair)

    def construct(
        self,
        token_ids: Tensor,
        position_ids: Tensor,
        slot_mapping: Tensor,
        block_tables: Tensor,
        context_lens: Tensor,
        q_seq_lens: Tensor,
        logits_indices: Tensor,
        num_tokens: Tensor,
        num_seqs: Tensor,
        num_logits: Tensor,
    ) -> Any:
        residual = self.embed(self.embedding_weight, token_ids, num_tokens)
        x = self.first_norm(residual, self.first_gamma, num_tokens)
        for layer in self.layers:
            x, residual = layer(
                x, residual, position_ids, slot_mapping, block_tables, context_lens, q_seq_lens, num_tokens, num_seqs
            )
        logits, greedy = self.lm_head_cell(self.gather(x, logits_indices, num_logits), num_logits)
        return logits, greedy, x
