"""The networks against Hugging Face transformers in float32, over the space of legal configurations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.checkpoints import SMALL, make_checkpoint, make_model
from tests.unit.models.driver import Driver, reference
from vllm_mindspore.models.config import ModelConfig
from vllm_mindspore.models.rope import rope_tables

# Both sides compute in float32 in different orders; logits of these models are of size 10.
FLOAT32_TOLERANCE = 2e-3


@st.composite
def configurations(draw: st.DrawFn) -> tuple[str, dict[str, Any]]:
    architecture = draw(
        st.sampled_from(["LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM"])
    )
    kv_heads = draw(st.integers(1, 4))
    heads = kv_heads * draw(st.sampled_from([1, 2, 3, 7]))
    head_dim = draw(st.sampled_from([2, 6, 16, 20, 64]))
    own_head_dim = architecture != "Qwen2ForCausalLM"
    config: dict[str, Any] = {
        "vocab_size": draw(st.sampled_from([33, 64, 97, 131])),
        "hidden_size": draw(st.sampled_from([32, 48, 72])) if own_head_dim else heads * head_dim,
        "intermediate_size": draw(st.sampled_from([17, 48, 100])),
        "num_hidden_layers": draw(st.integers(1, 3)),
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": head_dim,
        "tie_word_embeddings": draw(st.booleans()),
        "rms_norm_eps": draw(st.sampled_from([1e-6, 1e-5])),
        "rope_theta": draw(st.sampled_from([1e4, 5e5])),
    }
    if architecture in ("LlamaForCausalLM", "Qwen3ForCausalLM"):
        config["attention_bias"] = draw(st.booleans())
    if architecture == "LlamaForCausalLM":
        config["mlp_bias"] = draw(st.booleans())
    elif architecture == "MistralForCausalLM":
        config["sliding_window"] = draw(st.sampled_from([None, 1, 17]))
    elif draw(st.booleans()):
        config |= {
            "use_sliding_window": True,
            "sliding_window": draw(st.integers(1, 40)),
            "max_window_layers": draw(st.integers(0, 2)),
        }
    return architecture, config


@st.composite
def configurations_with_experts(draw: st.DrawFn) -> tuple[str, dict[str, Any]]:
    architecture = draw(st.sampled_from(["MixtralForCausalLM", "Qwen2MoeForCausalLM", "Qwen3MoeForCausalLM"]))
    num_experts = draw(st.sampled_from([2, 5, 9]))
    config: dict[str, Any] = {
        "vocab_size": draw(st.sampled_from([33, 97])),
        "hidden_size": draw(st.sampled_from([32, 48, 72])),
        "intermediate_size": draw(st.sampled_from([17, 48, 100])),
        "num_hidden_layers": draw(st.integers(1, 3)),
        "num_local_experts" if architecture == "MixtralForCausalLM" else "num_experts": num_experts,
        "num_experts_per_tok": draw(st.integers(1, num_experts)),
        "tie_word_embeddings": draw(st.booleans()),
    }
    if architecture != "Qwen2MoeForCausalLM":
        config["sliding_window"] = draw(st.sampled_from([None, 1, 17]))
    if architecture != "MixtralForCausalLM":
        config |= {
            "moe_intermediate_size": draw(st.sampled_from([9, 24])),
            "norm_topk_prob": draw(st.booleans()),
            "decoder_sparse_step": draw(st.integers(1, 2)),
            "mlp_only_layers": draw(st.sampled_from([[], [0], [1, 2]])),
        }
    if architecture == "Qwen3MoeForCausalLM":
        config |= {"attention_bias": draw(st.booleans()), "use_sliding_window": draw(st.booleans())}
    if architecture == "Qwen2MoeForCausalLM":
        config |= {
            "hidden_size": 48,  # transformers asks for heads times head_dim
            "qkv_bias": draw(st.booleans()),
            "shared_expert_intermediate_size": draw(st.sampled_from([9, 40])),
        }
    return architecture, config


@st.composite
def deepseek_configurations(draw: st.DrawFn) -> tuple[str, dict[str, Any]]:
    architecture = draw(st.sampled_from(["DeepseekV2ForCausalLM", "DeepseekV3ForCausalLM"]))
    heads = draw(st.sampled_from([1, 3, 4, 17]))
    groups, size = draw(st.sampled_from([(1, 2), (1, 7), (4, 2), (3, 5)]))
    chosen_groups = draw(st.integers(1, groups))
    config: dict[str, Any] = {
        "vocab_size": draw(st.sampled_from([33, 97])),
        "hidden_size": draw(st.sampled_from([32, 48, 72])),
        "intermediate_size": draw(st.sampled_from([17, 48, 100])),
        "moe_intermediate_size": draw(st.sampled_from([9, 24])),
        "num_hidden_layers": draw(st.integers(1, 4)),
        "num_attention_heads": heads,
        "num_key_value_heads": heads,
        "q_lora_rank": draw(st.sampled_from([None, 7, 36])),
        "kv_lora_rank": draw(st.sampled_from([5, 16, 20])),
        "qk_nope_head_dim": draw(st.sampled_from([3, 12, 32])),
        "qk_rope_head_dim": draw(st.sampled_from([2, 6, 8, 16])),
        "v_head_dim": draw(st.sampled_from([4, 10, 32])),
        "rope_interleave": draw(st.booleans()),
        "first_k_dense_replace": draw(st.integers(0, 2)),
        "n_routed_experts": groups * size,
        "n_shared_experts": draw(st.integers(1, 2)),
        "n_group": groups,
        "topk_group": chosen_groups,
        "num_experts_per_tok": draw(st.integers(1, min(6, chosen_groups * size))),
        "routed_scaling_factor": draw(st.sampled_from([1.0, 2.5])),
        "norm_topk_prob": draw(st.booleans()),
        "tie_word_embeddings": draw(st.booleans()),
    }
    if draw(st.booleans()):
        config["rope_scaling"] = {
            "type": "yarn",
            "factor": 4.0,
            "original_max_position_embeddings": 32,
            "mscale": draw(st.sampled_from([0.7, 1.0])),
            "mscale_all_dim": draw(st.sampled_from([0.7, 1.0])),
        }
    if architecture == "DeepseekV2ForCausalLM":
        config["topk_method"] = draw(st.sampled_from(["greedy", "group_limited_greedy"]))
        config["moe_layer_freq"] = draw(st.integers(1, 2))
    return architecture, config


# Not at random: where two experts are equal but for rounding, which one is chosen is a toss-up.
@settings(max_examples=40, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    configuration=configurations() | configurations_with_experts() | deepseek_configurations(),
    seed=st.integers(0, 1000),
    data=st.data(),
)
def test_any_legal_configuration_agrees_with_transformers(
    tmp_path_factory: pytest.TempPathFactory, configuration: tuple[str, dict[str, Any]], seed: int, data: st.DataObject
) -> None:
    architecture, config = configuration
    folder = tmp_path_factory.mktemp("model")
    model = make_checkpoint(folder, architecture, seed=seed, **config)
    driver = Driver(folder, model.config)
    rng = np.random.default_rng(seed)
    first, second = (rng.integers(0, config["vocab_size"], n).tolist() for n in (70, 9))

    # A prompt in two chunks, the second one beside another prompt; then both decode.
    cut = data.draw(st.integers(1, 69), label="cut")
    expected, other = reference(model, first), reference(model, second)
    start, _ = driver.step({0: first[:cut]})
    both, _ = driver.step({2: second[:8], 0: first[cut:69]} if cut < 69 else {2: second[:8]})
    logits, greedy = driver.step({0: [first[69]], 2: [second[8]]})

    np.testing.assert_allclose(start, expected[:cut], atol=FLOAT32_TOLERANCE, rtol=0)
    np.testing.assert_allclose(both, np.concatenate([other[:8], expected[cut:69]]), atol=FLOAT32_TOLERANCE, rtol=0)
    np.testing.assert_allclose(logits, np.stack([expected[69], other[8]]), atol=FLOAT32_TOLERANCE, rtol=0)
    for row, token in zip((expected[69], other[8]), greedy):
        assert row.max() - row[token] <= 2 * FLOAT32_TOLERANCE


ROPES = {
    "linear": {"rope_type": "linear", "factor": 3.0},
    "dynamic": {"rope_type": "dynamic", "factor": 2.0},
    "llama3": {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 32,
    },
    "yarn": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32},
    "yarn with its parameters": {
        "rope_type": "yarn",
        "factor": 4.0,
        "original_max_position_embeddings": 32,
        "beta_fast": 1,  # in so short a context no dimension makes the usual 32 turns
        "beta_slow": 0.25,
        "attention_factor": 1.3,
    },
}


@pytest.mark.parametrize("name", ROPES)
def test_rope_scaling_agrees_with_transformers(tmp_path: Path, name: str) -> None:
    model = make_checkpoint(tmp_path, "LlamaForCausalLM", rope_scaling=ROPES[name], head_dim=16)
    tokens = np.random.default_rng(1).integers(0, 97, 128).tolist()
    logits, _ = Driver(tmp_path, model.config).step({0: tokens})
    np.testing.assert_allclose(logits, reference(model, tokens), atol=FLOAT32_TOLERANCE, rtol=0)


@pytest.mark.parametrize(
    "options",
    [{}, {"beta_fast": 16, "beta_slow": 2}, {"mscale": 0.7, "mscale_all_dim": 1.0}],
    ids=["usual turns", "turns", "magnitudes"],
)
@pytest.mark.parametrize("theta", [1e4, 1e6])
def test_yarns_tables_are_those_of_transformers_where_some_dimensions_are_kept(
    options: dict[str, Any], theta: float
) -> None:
    """Published checkpoints have original contexts of thousands of tokens, in which fast dimensions make turns enough."""
    from transformers import LlamaConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    scaling = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 4096, **options}
    size = {**SMALL, "head_dim": 64, "max_position_embeddings": 16384}
    config = LlamaConfig(**size, rope_theta=theta, rope_scaling=scaling, architectures=["LlamaForCausalLM"])
    frequencies, scale = ROPE_INIT_FUNCTIONS["yarn"](config, "cpu")
    angles = np.tile(np.outer(np.arange(9), frequencies.double().numpy()), 2)
    for found, expected in zip(
        rope_tables(ModelConfig.from_hf(config, "float32", "a test"), 9), (np.cos(angles), np.sin(angles))
    ):
        np.testing.assert_allclose(found, expected * scale, atol=1e-5)


@pytest.mark.parametrize("name", ROPES)
@pytest.mark.parametrize("architecture", ["LlamaForCausalLM", "DeepseekV3ForCausalLM"])
def test_rope_parameters_of_transformers_5_mean_what_the_two_keys_before_them_did(
    tmp_path: Path, architecture: str, name: str
) -> None:
    scaling = {**ROPES[name], "mscale_all_dim": 0.7}
    old = make_checkpoint(tmp_path, architecture, rope_scaling=scaling, rope_theta=5e5).config.to_dict()
    new = {key: value for key, value in old.items() if key not in ("rope_scaling", "rope_theta")}
    new["rope_parameters"] = {**scaling, "rope_theta": 5e5}
    read = ModelConfig.from_hf(new, "float32", tmp_path)
    assert read == ModelConfig.from_hf(old, "float32", tmp_path)
    assert read.rope.theta == 5e5
    # transformers 4 fills in what it misses.
    assert ModelConfig.from_hf({**new, "rope_scaling": None, "rope_theta": 1e4}, "float32", tmp_path) == read


@pytest.mark.parametrize("architecture", ["DeepseekV2ForCausalLM", "DeepseekV3ForCausalLM"])
def test_deepseeks_rotation_is_interleaved_unless_its_configuration_says_otherwise(architecture: str) -> None:
    """Published configurations of DeepSeek-V2 do not say."""
    config = make_model(architecture).config.to_dict()
    assert config.pop("rope_interleave")
    read = ModelConfig.from_hf(config, "float32", "a test")
    assert read.mla is not None
    assert read.mla.rope_interleave


@pytest.mark.parametrize("first", [0, 1, 2, 4, None])
@pytest.mark.parametrize("architecture", ["Qwen2", "Qwen3"])
def test_max_window_layers_means_what_transformers_makes_layer_types_of_it(
    architecture: str, first: int | None
) -> None:
    """Checkpoints saved before transformers 4.53 have no layer_types."""
    import transformers

    options = {} if first is None else {"max_window_layers": first}
    kind = getattr(transformers, f"{architecture}Config")
    config = kind(**{**SMALL, "num_hidden_layers": 4}, use_sliding_window=True, sliding_window=5, **options).to_dict()
    kinds = config.pop("layer_types")
    if first is None:
        del config["max_window_layers"]
    read = ModelConfig.from_hf({**config, "architectures": [f"{architecture}ForCausalLM"]}, "float32", "a test")
    assert read.sliding_window == tuple(5 if kind == "sliding_attention" else 0 for kind in kinds)


@pytest.mark.parametrize(
    ("architecture", "options"),
    [
        ("DeepseekV2ForCausalLM", {"norm_topk_prob": True, "routed_scaling_factor": 2.5}),
        ("Qwen3MoeForCausalLM", {"attention_bias": True}),
    ],
    ids=["weights of experts are normalised or scaled", "biases beside experts"],
)
def test_what_few_configurations_ask_for_agrees_with_transformers(
    tmp_path: Path, architecture: str, options: dict[str, Any]
) -> None:
    model = make_checkpoint(tmp_path, architecture, **options)
    tokens = np.random.default_rng(1).integers(0, 97, 20).tolist()
    logits, _ = Driver(tmp_path, model.config).step({0: tokens})
    np.testing.assert_allclose(logits, reference(model, tokens), atol=FLOAT32_TOLERANCE, rtol=0)


def test_a_sliding_window_counts_for_llama_as_it_does_for_vllm(tmp_path: Path) -> None:
    """transformers knows it of Mistral only, whose network is the same."""
    model = make_checkpoint(tmp_path, "MistralForCausalLM", sliding_window=5)
    tokens = np.random.default_rng(1).integers(0, 97, 60).tolist()
    config = {**model.config.to_dict(), "architectures": ["LlamaForCausalLM"]}
    logits, _ = Driver(tmp_path, config).step({0: tokens})
    np.testing.assert_allclose(logits, reference(model, tokens), atol=FLOAT32_TOLERANCE, rtol=0)


def test_dynamic_rope_beyond_the_original_length_agrees_with_transformers_token_by_token(tmp_path: Path) -> None:
    model = make_checkpoint(
        tmp_path, "LlamaForCausalLM", rope_scaling=ROPES["dynamic"], head_dim=16, max_position_embeddings=32
    )
    tokens = np.random.default_rng(1).integers(0, 97, 60).tolist()
    driver = Driver(tmp_path, model.config)
    cache = None
    with torch.inference_mode():
        for start, end in [(0, 32), *((i, i + 1) for i in range(32, 60))]:
            out = model(torch.tensor([tokens[start:end]]), past_key_values=cache, use_cache=True)
            cache = out.past_key_values
            logits, _ = driver.step({0: tokens[start:end]})
            np.testing.assert_allclose(logits, out.logits[0].numpy(), atol=FLOAT32_TOLERANCE, rtol=0)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float16", 0.05), ("bfloat16", 0.4)])
def test_half_precision_stays_near_the_float32_model_of_the_same_weights(
    tmp_path: Path, dtype: str, tolerance: float
) -> None:
    # Weights are equal; keys, values and (where there are bfloat16 dot products) activations are rounded to `dtype`, by
    # 2^-11 and 2^-8 of their size, in two layers; logits are of size 10.
    model = make_checkpoint(tmp_path, "Qwen3ForCausalLM", dtype=dtype)
    tokens = np.random.default_rng(1).integers(0, 97, 100).tolist()
    logits, _ = Driver(tmp_path, model.config, dtype).step({0: tokens})
    expected = reference(model, tokens)
    assert np.abs(logits - expected).max() < tolerance
    assert np.abs(expected).max() > 5


@pytest.mark.parametrize(("dtype", "tolerance"), [("float16", 0.05), ("bfloat16", 0.4)])
@pytest.mark.parametrize("architecture", ["DeepseekV2ForCausalLM", "DeepseekV3ForCausalLM"])
def test_half_precision_stays_near_the_float32_model_where_experts_are_no_toss_up(
    tmp_path: Path, architecture: str, dtype: str, tolerance: float
) -> None:
    """As above. Where two experts are nearly as good, rounding chooses, which no bound covers: those rows are few."""
    model = make_checkpoint(tmp_path, architecture, dtype=dtype)
    tokens = np.random.default_rng(1).integers(0, 97, 100).tolist()
    logits, _ = Driver(tmp_path, model.config, dtype).step({0: tokens})
    expected = reference(model, tokens)
    error = np.abs(logits - expected).max(1)
    assert np.quantile(error, 0.9) < tolerance
    assert np.abs(expected).max() > 5


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("architecture", ["Qwen2ForCausalLM", "DeepseekV3ForCausalLM"])
def test_a_sequence_has_the_same_bits_alone_and_in_company(tmp_path: Path, architecture: str, dtype: str) -> None:
    model = make_checkpoint(tmp_path, architecture, dtype=dtype)
    rng = np.random.default_rng(2)
    prompts = [rng.integers(0, 97, n).tolist() for n in (41, 3, 77, 20)]
    driver = Driver(tmp_path, model.config, dtype, num_seqs=4, max_len=160)
    alone = []
    for prompt in prompts:
        whole, _ = driver.step({0: prompt[:-1]})
        last, _ = driver.step({0: prompt[-1:]})
        alone.append(np.concatenate([whole, last]))
        driver.forget(0)
    # Prompts in uneven pieces, mixed with each other and with decodes.
    pieces: list[list[np.ndarray]] = [[], [], [], []]
    while any(driver.lengths[i] < len(prompts[i]) for i in range(4)):
        new = {}
        for i in rng.permutation(4).tolist():
            left = len(prompts[i]) - driver.lengths[i]
            take = int(rng.integers(0, min(left, 30) + 1)) or min(left, 1)
            if take:
                new[i] = prompts[i][driver.lengths[i] : driver.lengths[i] + take]
        logits, _ = driver.step(new)
        start = 0
        for i, ids in new.items():
            pieces[i].append(logits[start : start + len(ids)])
            start += len(ids)
    for i in range(4):
        assert np.array_equal(np.concatenate(pieces[i]), alone[i])
