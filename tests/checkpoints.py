"""Small random checkpoints, made by Hugging Face transformers."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

CLASSES = {
    "LlamaForCausalLM": ("LlamaConfig", "LlamaForCausalLM"),
    "MistralForCausalLM": ("MistralConfig", "MistralForCausalLM"),
    "Qwen2ForCausalLM": ("Qwen2Config", "Qwen2ForCausalLM"),
    "Qwen3ForCausalLM": ("Qwen3Config", "Qwen3ForCausalLM"),
    "Qwen2MoeForCausalLM": ("Qwen2MoeConfig", "Qwen2MoeForCausalLM"),
    "Qwen3MoeForCausalLM": ("Qwen3MoeConfig", "Qwen3MoeForCausalLM"),
    "MixtralForCausalLM": ("MixtralConfig", "MixtralForCausalLM"),
    "DeepseekV3ForCausalLM": ("DeepseekV3Config", "DeepseekV3ForCausalLM"),
}
"""Those of transformers; DeepSeek-V2 is in `tests/deepseek_v2.py`."""

SMALL: dict[str, Any] = {
    "vocab_size": 97,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 12,
    "max_position_embeddings": 128,
    "tie_word_embeddings": True,
}

_DEEPSEEK: dict[str, Any] = {
    **{key: value for key, value in SMALL.items() if key not in ("num_key_value_heads", "head_dim")},
    "num_key_value_heads": 4,
    "num_hidden_layers": 3,
    "first_k_dense_replace": 1,
    "q_lora_rank": 36,
    "kv_lora_rank": 20,
    "qk_nope_head_dim": 12,
    "qk_rope_head_dim": 8,
    "v_head_dim": 10,
    "n_routed_experts": 8,
    "n_shared_experts": 1,
    "num_experts_per_tok": 3,
    "moe_intermediate_size": 24,
    "n_group": 4,
    "topk_group": 2,
    "routed_scaling_factor": 2.5,
    "norm_topk_prob": True,
}
OF_ITS_OWN: dict[str, dict[str, Any]] = {
    "DeepseekV3ForCausalLM": _DEEPSEEK,
    "DeepseekV2ForCausalLM": {**_DEEPSEEK, "topk_method": "group_limited_greedy", "norm_topk_prob": False},
    "Qwen2MoeForCausalLM": {**SMALL, "num_experts": 8, "num_experts_per_tok": 3, "moe_intermediate_size": 24, "shared_expert_intermediate_size": 40},
    "Qwen3MoeForCausalLM": {**SMALL, "num_experts": 8, "num_experts_per_tok": 3, "moe_intermediate_size": 24, "norm_topk_prob": True},
    "MixtralForCausalLM": {**SMALL, "num_local_experts": 6},
}  # fmt: skip


def classes(architecture: str) -> tuple[Any, Any]:
    """Of the configuration and of the model."""
    import transformers

    if architecture == "DeepseekV2ForCausalLM":
        from tests.deepseek_v2 import DeepseekV2ForCausalLM
        from tests.deepseek_v2_config import DeepseekV2Config

        return DeepseekV2Config, DeepseekV2ForCausalLM
    config_class, model_class = (getattr(transformers, name) for name in CLASSES[architecture])
    return config_class, model_class


def make_model(architecture: str, seed: int = 0, **overrides: Any) -> Any:
    """A float32 model with random weights, biases and norms, so that none of them can be forgotten unseen."""
    config_class, model_class = classes(architecture)
    config = config_class(**{**OF_ITS_OWN.get(architecture, SMALL), **overrides})
    config.architectures = [architecture]
    torch.manual_seed(seed)
    # Attention of eager kind: sdpa of some versions leaves sliding windows out.
    config._attn_implementation = "eager"
    model = model_class(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("norm.weight"):
                parameter.uniform_(0.5, 1.5)
            else:
                # Products of any width have the size of those of width 48, so that one tolerance does for all.
                fan_in = parameter.shape[1] if parameter.ndim == 2 and "embed" not in name else 48
                parameter.normal_(0, 0.3 * min(1.0, (48 / fan_in) ** 0.5))
        for name, buffer in model.named_buffers():
            if name.endswith("e_score_correction_bias"):
                # transformers lets experts outside of the chosen groups compete with a score of 0.
                buffer.uniform_(0, 0.3)
    return model


def make_checkpoint(folder: Path, architecture: str, dtype: str = "float32", **options: Any) -> Any:
    """Save a model of `make_model` (`options` but for save_pretrained's) and return it, weights rounded to `dtype`, in float32."""
    saving = {key: options.pop(key) for key in ("max_shard_size", "safe_serialization") if key in options}
    model = make_model(architecture, **options)
    round_weights(model, dtype)
    half = copy.deepcopy(model).to(getattr(torch, dtype))
    half.config.torch_dtype = dtype
    half.save_pretrained(folder, **saving)
    return model


def save_as_int8(folder: Path, model: Any, *, packed: bool, dtype: str = "bfloat16") -> None:
    """Save a model in float32 as compressed-tensors does, linear layers but for the head in int8; in `model` they become what is saved.

    Packed it is what is called W8A16, otherwise W8A8.
    """
    state = {name: tensor.to(getattr(torch, dtype)) for name, tensor in model.state_dict().items()}
    for name, module in model.named_modules():
        if not isinstance(module, torch.nn.Linear) or name == "lm_head" or name.endswith(".gate"):
            continue
        scale = (module.weight.detach().abs().amax(1, keepdim=True) / 127.5).to(getattr(torch, dtype))
        numbers = (module.weight.detach() / scale.float()).round().clamp(-128, 127)
        module.weight.data = numbers * scale.float()
        del state[f"{name}.weight"]
        state[f"{name}.weight_scale"] = scale
        if not packed:
            state[f"{name}.weight"] = numbers.to(torch.int8)
            continue
        rows, columns = numbers.shape
        bytes_ = torch.nn.functional.pad(numbers + 128, (0, -columns % 4)).to(torch.uint8)
        state[f"{name}.weight_packed"] = bytes_.view(torch.int32)
        state[f"{name}.weight_shape"] = torch.tensor([rows, columns])
    if model.config.tie_word_embeddings:
        del state["lm_head.weight"]
    folder.mkdir(exist_ok=True)
    save_file(state, folder / "model.safetensors", {"format": "pt"})
    numbers_of = {"num_bits": 8, "type": "int", "symmetric": True}
    group = {
        "targets": ["Linear"],
        "weights": {**numbers_of, "strategy": "channel", "dynamic": False},
        "input_activations": None if packed else {**numbers_of, "strategy": "token", "dynamic": True},
        "output_activations": None,
    }
    config = {
        **model.config.to_dict(),
        "torch_dtype": dtype,
        "quantization_config": {
            "quant_method": "compressed-tensors",
            "format": "pack-quantized" if packed else "int-quantized",
            "quantization_status": "compressed",
            "config_groups": {"group_0": group},
            "ignore": ["lm_head", "re:.*\\.gate$"],
            "kv_cache_scheme": None,
        },
    }
    (folder / "config.json").write_text(json.dumps(config))


def rewrite(file: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    """Change the tensors of a file."""
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file, metadata={"format": "pt"})


def round_weights(model: Any, dtype: str) -> None:
    """Round to `dtype` and back: weights only, as `model.to(dtype)` would also round the rotary frequencies."""
    for tensor in model.state_dict().values():
        tensor.copy_(tensor.to(getattr(torch, dtype)).float())


def make_tokenizer(folder: Path) -> None:
    """A word for each id: not every release starts without a tokenizer."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({f"w{i}": i for i in range(SMALL["vocab_size"])}, unk_token="w0"))
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="w0", eos_token="w2").save_pretrained(folder)
