"""DeepSeek-V2 in float32: transformers' DeepSeek-V3 with the layers and the choice of experts that V2's paper and its checkpoints' code have."""

from __future__ import annotations

import torch
from torch import nn
from transformers import DeepseekV3ForCausalLM
from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3MLP, DeepseekV3MoE

from tests.deepseek_v2_config import DeepseekV2Config


class Router(nn.Module):
    """Softmax over all experts; the best of all, or of the groups with the best single experts."""

    def __init__(self, config: DeepseekV2Config) -> None:
        super().__init__()
        self.config = config
        self.weight = nn.Parameter(torch.empty(config.n_routed_experts, config.hidden_size))

    def forward(self, hidden_states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        config = self.config
        scores = (hidden_states.reshape(-1, config.hidden_size) @ self.weight.T).softmax(-1)
        allowed = scores
        if config.topk_method == "group_limited_greedy":
            grouped = scores.reshape(len(scores), config.n_group, -1)
            kept = torch.zeros(grouped.shape[:2], dtype=torch.bool)
            kept.scatter_(1, grouped.amax(-1).topk(config.topk_group).indices, True)
            allowed = torch.where(kept[..., None], grouped, -1.0).reshape(scores.shape)
        weights, experts = allowed.topk(config.num_experts_per_tok)
        if config.norm_topk_prob and config.num_experts_per_tok > 1:
            return experts, weights / weights.sum(-1, keepdim=True)
        return experts, weights * config.routed_scaling_factor


def project_queries_at_once(attention: nn.Module) -> None:
    """V2-Lite's `q_proj`, in the place of a projection down, a norm and a projection up."""
    attention.q_proj = nn.Linear(attention.config.hidden_size, attention.q_b_proj.out_features, bias=False)
    attention.q_a_proj = attention.q_a_layernorm = nn.Identity()
    del attention.q_b_proj
    attention.q_b_proj = attention.q_proj.forward


class DeepseekV2ForCausalLM(DeepseekV3ForCausalLM):
    config_class = DeepseekV2Config

    def __init__(self, config: DeepseekV2Config) -> None:
        is_lite = config.q_lora_rank is None
        if is_lite:
            config.q_lora_rank = 1  # not all transformers make a DeepSeek-V3 without
        super().__init__(config)
        if is_lite:
            config.q_lora_rank = None
        for index, layer in enumerate(self.model.layers):
            if is_lite:
                project_queries_at_once(layer.self_attn)
            if isinstance(layer.mlp, DeepseekV3MoE):
                layer.mlp.gate = Router(config)
                if index % config.moe_layer_freq:
                    layer.mlp = DeepseekV3MLP(config)
