"""Checkpoints that hold int8 weights, as compressed-tensors writes them, against transformers with what they stand for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.checkpoints import SMALL, make_model, rewrite, round_weights, save_as_int8
from tests.unit.models.driver import Driver, reference
from vllm_mindspore.errors import UserError
from vllm_mindspore.models.config import ModelConfig

TOKENS = [5, 17, 3, 88, 41, 9, 60, 2, 33]
INT16_TOLERANCE = 5e-3
"""Of logits of size 10, as rows are rounded to int16 where they meet int8."""


def logits_of(folder: Path) -> np.ndarray:
    from transformers import AutoConfig

    logits, _ = Driver(folder, AutoConfig.from_pretrained(folder), "float32").step({0: TOKENS})
    return logits


@pytest.mark.parametrize("packed", [False, True], ids=["int-quantized", "pack-quantized"])
@pytest.mark.parametrize(
    ("architecture", "options"),
    [
        ("LlamaForCausalLM", {"intermediate_size": 81}),  # four numbers to an int32 do not come out even
        ("Qwen2ForCausalLM", {"tie_word_embeddings": False}),
        ("Qwen3MoeForCausalLM", {}),
        ("DeepseekV3ForCausalLM", {"q_lora_rank": 35}),
    ],
    ids=["Llama", "Qwen2", "Qwen3-MoE", "DeepSeek-V3"],
)
def test_logits_are_those_of_what_is_stored(
    tmp_path: Path, architecture: str, options: dict[str, Any], packed: bool
) -> None:
    model = make_model(architecture, **options)
    round_weights(model, "bfloat16")
    save_as_int8(tmp_path, model, packed=packed)
    assert np.abs(logits_of(tmp_path) - reference(model, TOKENS)).max() < INT16_TOLERANCE


@pytest.mark.parametrize("packed", [False, True], ids=["int-quantized", "pack-quantized"])
def test_the_checkpoints_of_these_tests_are_what_compressed_tensors_reads(tmp_path: Path, packed: bool) -> None:
    from compressed_tensors.compressors import BaseCompressor
    from compressed_tensors.quantization import QuantizationConfig

    model = make_model("LlamaForCausalLM", intermediate_size=81)
    save_as_int8(tmp_path, model, packed=packed, dtype="float32")
    stored = json.loads((tmp_path / "config.json").read_text())["quantization_config"]
    config = QuantizationConfig.model_validate(stored)
    linear = [f"model.layers.{i}.{name}" for i in range(2) for name in LINEAR]
    found = dict(
        BaseCompressor.load_from_registry(stored["format"], config=config).decompress(
            str(tmp_path), dict.fromkeys(linear, config.config_groups["group_0"])
        )
    )
    assert set(found) == set(linear)
    for name, tensors in found.items():
        torch.testing.assert_close(tensors["weight"], model.get_submodule(name).weight, rtol=1e-6, atol=0)


LINEAR = [f"self_attn.{part}_proj" for part in "qkvo"] + [f"mlp.{part}_proj" for part in ("gate", "up", "down")]


GROUP = {"weights": {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "channel"}}
STORED = {"quant_method": "compressed-tensors", "format": "int-quantized", "config_groups": {"group_0": GROUP}}
CONFIG = {**SMALL, "architectures": ["LlamaForCausalLM"]}


def changed(**weights: Any) -> dict[str, Any]:
    return {**STORED, "config_groups": {"group_0": {"weights": {**GROUP["weights"], **weights}}}}


@pytest.mark.parametrize(
    ("stored", "said"),
    [
        ({"quant_method": "awq", "bits": 4}, "quantization_config.quant_method = 'awq', it must be compressed-tensors, or there must be none."),
        ({**STORED, "format": "float-quantized"}, "quantization_config.format = 'float-quantized', it must be int-quantized or pack-quantized."),
        (changed(num_bits=4), "quantization_config.config_groups.group_0.weights.num_bits = 4, it must be 8."),
        (changed(type="float"), "weights.type = 'float', it must be 'int'."),
        (changed(symmetric=False), "weights.symmetric = False, it must be True."),
        (changed(strategy="group"), "weights.strategy = 'group', it must be 'channel'."),
        ({**STORED, "config_groups": {"group_0": {**GROUP, "input_activations": {"num_bits": 8, "type": "float"}}}}, "input_activations.type = 'float'"),
        ({**STORED, "config_groups": {"group_0": {**GROUP, "output_activations": {"num_bits": 8}}}}, "output_activations = {'num_bits': 8}, it must be null."),
        ({**STORED, "config_groups": {"group_0": {}}}, "group_0.weights = None, it must be an object."),
        ({**STORED, "config_groups": None}, "config_groups = None, it must be an object of objects."),
        ({**STORED, "kv_cache_scheme": {"num_bits": 8}}, "kv_cache_scheme = {'num_bits': 8}, it must be null."),
        ({**STORED, "sparsity_config": {"format": "sparse-24-bitmask"}}, "sparsity_config"),
        ("int8", "quantization_config = 'int8', it must be an object."),
    ],
)  # fmt: skip
def test_other_weights_are_refused_by_the_key(stored: Any, said: str) -> None:
    with pytest.raises(UserError) as refusal:
        ModelConfig.from_hf({**CONFIG, "quantization_config": stored}, "bfloat16", "somebody/something")
    assert said in str(refusal.value)


def test_dense_weights_and_other_formats_of_a_group_are_read() -> None:
    group = {**GROUP, "format": "pack-quantized", "input_activations": {"num_bits": 8, "type": "int"}}
    for stored in (
        STORED,
        {**STORED, "sparsity_config": {"format": "dense"}},
        {**STORED, "format": "mixed", "config_groups": {"a": group}},
    ):
        assert ModelConfig.from_hf({**CONFIG, "quantization_config": stored}, "bfloat16", "x").num_layers == 2


def test_how_activations_were_to_be_rounded_is_passed_over(tmp_path: Path) -> None:
    model = make_model("LlamaForCausalLM")
    save_as_int8(tmp_path, model, packed=False)
    before = logits_of(tmp_path)

    def add(tensors: dict[str, torch.Tensor]) -> None:
        for name in [name for name in tensors if name.endswith(".weight_scale")]:
            layer = name.rpartition(".")[0]
            tensors |= {f"{layer}.input_scale": torch.tensor([0.1]), f"{layer}.input_zero_point": torch.tensor([3])}

    rewrite(tmp_path / "model.safetensors", add)
    assert (logits_of(tmp_path) == before).all()


@pytest.mark.parametrize(
    ("architecture", "part"),
    [
        ("Qwen3MoeForCausalLM", ".experts.0."),
        ("Qwen3MoeForCausalLM", ".experts.5."),
        ("LlamaForCausalLM", ".k_proj."),
        ("DeepseekV3ForCausalLM", ".kv_a_proj_with_mqa."),
    ],
)
def test_layers_that_one_operator_computes_may_be_stored_in_different_ways(
    tmp_path: Path, architecture: str, part: str
) -> None:
    model = make_model(architecture)
    round_weights(model, "bfloat16")
    save_as_int8(tmp_path, model, packed=False)
    before = logits_of(tmp_path)

    def widen(tensors: dict[str, torch.Tensor]) -> None:
        for name in [name for name in tensors if part in name and name.endswith("_scale")]:
            weight = name[: -len("_scale")]
            tensors[weight] = tensors[weight].float() * tensors.pop(name).float()

    rewrite(tmp_path / "model.safetensors", widen)
    after, expected = logits_of(tmp_path), reference(model, TOKENS)
    assert np.abs(after - expected).max() < INT16_TOLERANCE
    # Nothing is rounded a second time, and what is computed beside it in float32 now is nearer.
    assert np.abs(after - expected).mean() < np.abs(before - expected).mean()
