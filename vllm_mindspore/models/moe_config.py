"""Mixtures of experts: how many there are, how a token's are chosen, and what a checkpoint calls them."""

from __future__ import annotations

from dataclasses import dataclass

from vllm_mindspore.models.config_reader import ConfigReader

_MOST_EXPERTS = 1024
"""Among which the kernels choose."""


@dataclass(frozen=True)
class MoeConfig:
    """Feed-forward layers of which a token passes through a few."""

    layers: tuple[bool, ...]
    """For each layer, whether it is one; the others have a dense MLP."""
    num_experts: int
    experts_per_token: int
    intermediate_size: int
    """Of one expert."""
    normalize: bool
    """Weights of a token's experts sum to 1 before they are scaled."""
    shared_intermediate_size: int = 0
    """Of the expert that every token passes through; 0 if there is none."""
    shared_gate: bool = False
    """Whether its answer is weighted, with the sigmoid of a logit of its own (Qwen2-MoE)."""
    sigmoid: bool = False
    """Scores are sigmoids, to which a bias is added for the choice (DeepSeek-V3), not softmaxes."""
    num_groups: int = 1
    groups_per_token: int = 1
    """A token's experts are all from this many groups."""
    scale: float = 1.0
    name: str = "mlp"
    """Of the module in a layer."""
    shared_name: str = "shared_experts"
    projections: tuple[str, str, str] = ("gate_proj", "up_proj", "down_proj")
    """Of an expert."""


def read_moe(reader: ConfigReader, architecture: str, num_layers: int) -> MoeConfig | None:
    """None for a dense model.

    Raises:
        UserError: a key is missing or has a value that the network cannot follow.
    """
    readers = {
        "DeepseekV2ForCausalLM": _deepseek,
        "DeepseekV3ForCausalLM": _deepseek,
        "Qwen2MoeForCausalLM": _qwen,
        "Qwen3MoeForCausalLM": _qwen,
        "MixtralForCausalLM": _mixtral,
    }
    if architecture not in readers:
        return None
    moe = readers[architecture](reader, architecture, num_layers)
    return moe if moe is not None and any(moe.layers) else None


def _counts(reader: ConfigReader, experts: str) -> tuple[int, int]:
    num_experts, chosen = reader.count(experts), reader.count("num_experts_per_tok")
    if num_experts > _MOST_EXPERTS:
        raise reader.illegal(experts, f"at most {_MOST_EXPERTS}")
    if chosen > num_experts:
        raise reader.illegal("num_experts_per_tok", f"at most {experts}, which is {num_experts}")
    return num_experts, chosen


def _deepseek(reader: ConfigReader, architecture: str, num_layers: int) -> MoeConfig | None:
    if reader.get("n_routed_experts") is None:
        return None
    num_experts, chosen = _counts(reader, "n_routed_experts")
    is_v3 = architecture == "DeepseekV3ForCausalLM"
    scoring = reader.get("scoring_func", "sigmoid" if is_v3 else "softmax")
    method = reader.get("topk_method", "noaux_tc" if is_v3 else "greedy")
    methods = {"sigmoid": ("noaux_tc",), "softmax": ("greedy", "group_limited_greedy")}
    if scoring not in methods:
        raise reader.illegal("scoring_func", f"one of {', '.join(methods)}")
    if method not in methods[scoring]:
        raise reader.illegal("topk_method", f"{' or '.join(methods[scoring])}, as scoring_func is {scoring}")
    groups, chosen_groups = _groups(reader, num_experts, chosen) if method != "greedy" else (1, 1)
    if scoring == "sigmoid" and num_experts // groups < 2:
        raise reader.illegal("n_group", f"at most half of n_routed_experts, which is {num_experts}")
    normalize, scale = reader.flag("norm_topk_prob"), reader.number("routed_scaling_factor", 1.0)
    if scoring == "softmax":
        # As in the code that DeepSeek-V2's checkpoints carry: weights are either normalised or scaled.
        normalize = normalize and chosen > 1
        scale = 1.0 if normalize else scale
    first, frequency = reader.index("first_k_dense_replace"), reader.index("moe_layer_freq") or 1
    width = reader.count("moe_intermediate_size")
    return MoeConfig(
        layers=tuple(layer >= first and layer % frequency == 0 for layer in range(num_layers)),
        num_experts=num_experts,
        experts_per_token=chosen,
        intermediate_size=width,
        normalize=normalize,
        shared_intermediate_size=width * reader.index("n_shared_experts"),
        sigmoid=scoring == "sigmoid",
        num_groups=groups,
        groups_per_token=chosen_groups,
        scale=scale,
    )


def _groups(reader: ConfigReader, num_experts: int, chosen: int) -> tuple[int, int]:
    groups, chosen_groups = reader.count("n_group"), reader.count("topk_group")
    if num_experts % groups:
        raise reader.illegal("n_group", f"a divisor of n_routed_experts, which is {num_experts}")
    if not chosen <= chosen_groups * (num_experts // groups) <= num_experts:
        raise reader.illegal("topk_group", f"at most n_group and enough for {chosen} experts")
    return groups, chosen_groups


def _qwen(reader: ConfigReader, architecture: str, num_layers: int) -> MoeConfig:
    num_experts, chosen = _counts(reader, "num_experts")
    shared = reader.count("shared_expert_intermediate_size") if architecture == "Qwen2MoeForCausalLM" else 0
    dense, step = reader.get("mlp_only_layers") or (), reader.index("decoder_sparse_step") or 1
    if not isinstance(dense, (list, tuple)) or not all(type(layer) is int for layer in dense):
        raise reader.illegal("mlp_only_layers", "a list of whole numbers")
    return MoeConfig(
        layers=tuple(layer not in dense and (layer + 1) % step == 0 for layer in range(num_layers)),
        num_experts=num_experts,
        experts_per_token=chosen,
        intermediate_size=reader.count("moe_intermediate_size"),
        normalize=reader.flag("norm_topk_prob"),
        shared_intermediate_size=shared,
        shared_gate=shared > 0,
        shared_name="shared_expert",
    )


def _mixtral(reader: ConfigReader, architecture: str, num_layers: int) -> MoeConfig:
    num_experts, chosen = _counts(reader, "num_local_experts")
    return MoeConfig(
        layers=(True,) * num_layers,
        num_experts=num_experts,
        experts_per_token=chosen,
        intermediate_size=reader.count("intermediate_size"),
        normalize=True,
        name="block_sparse_moe",
        projections=("w1", "w3", "w2"),
    )
