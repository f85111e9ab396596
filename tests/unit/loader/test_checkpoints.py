"""Every form of checkpoint, and every kind of damage."""

from __future__ import annotations

import json
import logging
import re
import shutil
import sys
import types
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.checkpoints import make_checkpoint, make_model, rewrite, round_weights
from tests.unit.models.driver import Driver
from vllm_mindspore import loader
from vllm_mindspore.errors import UserError
from vllm_mindspore.loader import load_model
from vllm_mindspore.models.config import ModelConfig

TOKENS = [1, 2, 3, 5, 8, 13, 21]


def logits(folder: Path, config: Any, dtype: str = "float32") -> np.ndarray:
    return Driver(folder, config, dtype).step({0: TOKENS})[0]


@pytest.mark.parametrize(
    "form",
    [{}, {"max_shard_size": "20KB"}, {"safe_serialization": False}, {"safe_serialization": False, "max_shard_size": "20KB"}],
    ids=["safetensors", "sharded safetensors", "bin", "sharded bin"],
)  # fmt: skip
def test_all_forms_of_a_checkpoint_are_read(tmp_path: Path, form: dict[str, Any]) -> None:
    model = make_checkpoint(tmp_path, "LlamaForCausalLM", tie_word_embeddings=False, **form)
    stem = "pytorch_model" if form.get("safe_serialization") is False else "model"
    assert len(list(tmp_path.glob(f"{stem}*"))) > 1 if "max_shard_size" in form else True
    with torch.inference_mode():
        expected = model(torch.tensor([TOKENS])).logits[0].numpy()
    np.testing.assert_allclose(logits(tmp_path, model.config), expected, atol=2e-3, rtol=0)


def resaved(folder: Path, save: Callable[[dict[str, torch.Tensor], Path], Any]) -> None:
    """The weights of a folder in other files."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    save(tensors, folder)


def in_two_files(tensors: dict[str, torch.Tensor], folder: Path) -> None:
    names = list(tensors)
    for file, part in (("one.safetensors", names[:5]), ("two.safetensors", names[5:])):
        save_file({name: tensors[name] for name in part}, folder / file, {"format": "pt"})
    save_file(tensors, folder / "consolidated.safetensors")  # Mistral's own form, beside


@pytest.mark.parametrize(
    "save",
    [
        in_two_files,
        lambda tensors, folder: torch.save({name: torch.nn.Parameter(tensor) for name, tensor in tensors.items()}, folder / "pytorch_model.bin"),
        lambda tensors, folder: torch.save({name: tensor.double() for name, tensor in tensors.items()} | {"epoch": 3}, folder / "pytorch_model.bin"),
    ],
    ids=["without an index", "parameters", "float64, and a number"],
)  # fmt: skip
def test_what_others_read_is_read(tmp_path: Path, save: Callable[[dict[str, torch.Tensor], Path], Any]) -> None:
    config = make_checkpoint(tmp_path, "LlamaForCausalLM").config
    expected = logits(tmp_path, config)
    resaved(tmp_path, save)
    assert np.array_equal(logits(tmp_path, config), expected)


in_both_pickles = pytest.mark.parametrize(
    "save",
    [
        lambda tensors, folder: torch.save(tensors, folder / "pytorch_model.bin"),
        lambda tensors, folder: torch.save(tensors, folder / "pytorch_model.bin", _use_new_zipfile_serialization=False),
    ],
    ids=["an archive", "as torch did before 1.6"],
)

WIDE = {"hidden_size": 256, "kv_lora_rank": 64, "qk_nope_head_dim": 32, "v_head_dim": 32}
"""Weights of more than a page."""


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@in_both_pickles
def test_a_weight_that_is_read_twice_is_the_same_twice(
    tmp_path: Path, save: Callable[[dict[str, torch.Tensor], Path], Any], dtype: torch.dtype
) -> None:
    """DeepSeek's kv_b_proj holds keys and values of each head, which are packed one after the other."""
    model = make_checkpoint(tmp_path, "DeepseekV3ForCausalLM", **WIDE)
    resaved(tmp_path, lambda tensors, folder: save({name: t.to(dtype) for name, t in tensors.items()}, folder))
    with torch.inference_mode():
        expected = model(torch.tensor([TOKENS])).logits[0].numpy()
    np.testing.assert_allclose(logits(tmp_path, model.config), expected, atol=2e-3, rtol=0)


@in_both_pickles
def test_two_names_may_share_one_memory(tmp_path: Path, save: Callable[[dict[str, torch.Tensor], Path], Any]) -> None:
    """A tied head, saved beside the embedding by who does not say in config.json that it is tied."""

    def tie(tensors: dict[str, torch.Tensor], folder: Path) -> None:
        save({**tensors, "lm_head.weight": tensors["model.embed_tokens.weight"]}, folder)

    model = make_checkpoint(tmp_path, "LlamaForCausalLM", hidden_size=256)
    resaved(tmp_path, tie)
    with torch.inference_mode():
        expected = model(torch.tensor([TOKENS])).logits[0].numpy()
    untied = {**model.config.to_dict(), "tie_word_embeddings": False}
    np.testing.assert_allclose(logits(tmp_path, untied), expected, atol=2e-3, rtol=0)


def store_the_tied_head(folder: Path) -> None:
    rewrite(
        folder / "model.safetensors",
        lambda tensors: tensors.update({"lm_head.weight": tensors["model.embed_tokens.weight"].clone()}),
    )


def leave_a_pickle(folder: Path) -> None:
    torch.save({"wrong": torch.zeros(2)}, folder / "pytorch_model.bin")


def leave_weights_of_other_programs(folder: Path) -> None:
    for name in ("consolidated.safetensors", "adapter_model.safetensors", "optimizer.safetensors"):
        shutil.copy(folder / "model.safetensors", folder / name)


def rename_beside_weights_of_other_programs(folder: Path) -> None:
    for name in ("consolidated.safetensors", "adapter_model.safetensors"):
        shutil.copy(folder / "model.safetensors", folder / name)
    (folder / "model.safetensors").rename(folder / "weights.safetensors")


@pytest.mark.parametrize(
    "change",
    [store_the_tied_head, leave_a_pickle, leave_weights_of_other_programs, rename_beside_weights_of_other_programs],
    ids=lambda change: change.__name__,
)
def test_what_stands_beside_the_weights_does_not_matter(tmp_path: Path, change: Callable[[Path], None]) -> None:
    config = make_checkpoint(tmp_path, "LlamaForCausalLM").config
    expected = logits(tmp_path, config)
    change(tmp_path)
    assert np.array_equal(logits(tmp_path, config), expected)


def test_a_tensor_that_two_files_hold_is_named(tmp_path: Path) -> None:
    config = make_checkpoint(tmp_path, "LlamaForCausalLM").config
    resaved(tmp_path, in_two_files)
    shutil.copy(tmp_path / "one.safetensors", tmp_path / "three.safetensors")
    assert re.search(r"one.safetensors and .*three.safetensors both hold model.*: keep", refusal(tmp_path, config))


def test_where_there_is_an_index_shards_may_hold_a_tensor_twice(good: tuple[Path, Any], damaged: Path) -> None:
    for shard in damaged.glob("*.safetensors"):
        rewrite(shard, lambda tensors: tensors.update({"model.norm.weight": torch.ones(48)}))
    expected = logits(damaged, good[1])
    (damaged / "model.safetensors.index.json").unlink()
    assert "both hold model.norm.weight" in refusal(damaged, good[1])
    assert np.isfinite(expected).all()


@pytest.mark.parametrize("content", [[1, 2], {0: torch.zeros(2)}, torch.zeros(2)], ids=["list", "numbered", "tensor"])
def test_a_pickle_that_holds_no_weights_is_named(good: tuple[Path, Any], tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "pytorch_model.bin")
    assert "pytorch_model.bin holds no tensors by name but a " in refusal(tmp_path, good[1])


def test_parts_of_a_fused_product_may_have_different_dtypes(tmp_path: Path) -> None:
    def widen(tensors: dict[str, torch.Tensor]) -> None:
        name = "model.layers.0.self_attn.k_proj.weight"
        tensors[name] = tensors[name].float()

    config = make_checkpoint(tmp_path, "LlamaForCausalLM", "bfloat16").config
    expected = logits(tmp_path, config, "bfloat16")
    rewrite(tmp_path / "model.safetensors", widen)
    assert np.array_equal(logits(tmp_path, config, "bfloat16"), expected)


@pytest.mark.parametrize("stored", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("wanted", ["float32", "bfloat16", "float16"])
def test_weights_of_one_dtype_serve_in_another(tmp_path: Path, stored: str, wanted: str) -> None:
    model = make_checkpoint(tmp_path, "Qwen2ForCausalLM", dtype=stored)
    round_weights(model, wanted)
    with torch.inference_mode():
        expected = model(torch.tensor([TOKENS])).logits[0].numpy()
    tolerance = {"float32": 2e-3, "float16": 0.05, "bfloat16": 0.4}[wanted]  # of the cache and of dot products
    np.testing.assert_allclose(logits(tmp_path, model.config, wanted), expected, atol=tolerance, rtol=0)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    folder = tmp_path_factory.mktemp("good")
    model = make_checkpoint(folder, "LlamaForCausalLM", max_shard_size="20KB")
    return folder, model.config


@pytest.fixture
def damaged(good: tuple[Path, Any], tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(good[0], tmp_path / "model"))


def refusal(folder: Path, config: Any, dtype: str = "float32") -> str:
    with pytest.raises(UserError) as caught:
        load_model(str(folder), config, dtype, show_progress=False, max_position=64)
    sentence = str(caught.value)
    assert "\n" not in sentence
    return sentence


def shard_with(folder: Path, name: str) -> Path:
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    return folder / str(index["weight_map"][name])


NAME = "model.layers.1.mlp.down_proj.weight"


def test_a_missing_shard_is_named(good: tuple[Path, Any], damaged: Path) -> None:
    shard = shard_with(damaged, NAME)
    shard.unlink()
    assert refusal(damaged, good[1]).startswith(f"{shard} is missing, though model.safetensors.index.json lists it")


def test_a_truncated_file_is_named(good: tuple[Path, Any], damaged: Path) -> None:
    shard = shard_with(damaged, NAME)
    shard.write_bytes(shard.read_bytes()[:-100])
    assert re.search(rf"{shard} is damaged or not complete \(.+\): fetch it again", refusal(damaged, good[1]))


def test_an_empty_file_is_named(good: tuple[Path, Any], damaged: Path) -> None:
    shard = shard_with(damaged, NAME)
    shard.write_bytes(b"")
    assert f"{shard} is damaged or not complete" in refusal(damaged, good[1])


def test_a_flipped_bit_in_the_header_is_named(good: tuple[Path, Any], damaged: Path) -> None:
    shard = shard_with(damaged, NAME)
    content = bytearray(shard.read_bytes())
    content[8] ^= 1  # the header's opening brace
    shard.write_bytes(content)
    assert f"{shard} is damaged or not complete" in refusal(damaged, good[1])


def test_a_flipped_bit_that_makes_a_weight_infinite_is_named(good: tuple[Path, Any], damaged: Path) -> None:
    def flip(tensors: dict[str, torch.Tensor]) -> None:
        tensors[NAME].view(torch.int32)[3, 4] |= 0x7F800000

    shard = shard_with(damaged, NAME)
    rewrite(shard, flip)
    assert f"{shard}: {NAME} holds a value that is not a finite number" in refusal(damaged, good[1])


def test_a_vector_that_is_not_finite_is_named(good: tuple[Path, Any], damaged: Path) -> None:
    name = "model.layers.1.input_layernorm.weight"

    def spoil(tensors: dict[str, torch.Tensor]) -> None:
        tensors[name][3] = float("nan")

    rewrite(shard_with(damaged, name), spoil)
    assert f"{name} holds a value that is not a finite number" in refusal(damaged, good[1])


def test_a_weight_too_large_for_the_dtype_is_named(good: tuple[Path, Any], damaged: Path) -> None:
    def enlarge(tensors: dict[str, torch.Tensor]) -> None:
        tensors[NAME][0, 0] = 1e6

    rewrite(shard_with(damaged, NAME), enlarge)
    assert f"{NAME} holds a value that is not a finite number in float16" in refusal(damaged, good[1], "float16")


def test_a_pickle_that_is_none_is_named(good: tuple[Path, Any], tmp_path: Path) -> None:
    model = make_checkpoint(tmp_path, "LlamaForCausalLM", safe_serialization=False)
    file = tmp_path / "pytorch_model.bin"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    assert f"{file} is damaged or not complete" in refusal(tmp_path, model.config)


def test_a_pickle_that_runs_code_is_refused(good: tuple[Path, Any], tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, tuple[str]]:
            return Path.touch, (str(tmp_path / "was here"),)  # type: ignore[return-value]

    torch.save({"model.norm.weight": Evil()}, tmp_path / "pytorch_model.bin")
    assert "is damaged or not complete" in refusal(tmp_path, good[1])
    assert not (tmp_path / "was here").exists()


def test_an_index_that_is_none_is_named(good: tuple[Path, Any], damaged: Path) -> None:
    index = damaged / "model.safetensors.index.json"
    index.write_text('{"weight_map": [')
    assert refusal(damaged, good[1]) == f"{index} is not the index of a sharded checkpoint: fetch it again."


def test_a_folder_without_weights_is_named(good: tuple[Path, Any], tmp_path: Path) -> None:
    assert refusal(tmp_path, good[1]).startswith(f"{tmp_path} has neither *.safetensors nor pytorch_model*.bin")


def test_a_missing_tensor_is_named(good: tuple[Path, Any], damaged: Path) -> None:
    def remove(tensors: dict[str, torch.Tensor]) -> None:
        del tensors[NAME]

    rewrite(shard_with(damaged, NAME), remove)
    assert f"has no tensor {NAME} in its weights" in refusal(damaged, good[1])


def test_a_tensor_too_many_is_named(good: tuple[Path, Any], damaged: Path) -> None:
    rewrite(shard_with(damaged, NAME), lambda tensors: tensors.update({"model.layers.0.extra": torch.zeros(2)}))
    assert "holds model.layers.0.extra, which the model that its config.json describes does not have" in refusal(
        damaged, good[1]
    )


def test_leftovers_of_old_checkpoints_do_not_matter(good: tuple[Path, Any], damaged: Path) -> None:
    names = ("rotary_emb.inv_freq", "rotary_emb.cos_cached", "rotary_emb.sin_cached", "masked_bias", "attn.bias")
    names += ("k_scale", "v_scale", "kv_scale")
    leftover = {f"model.layers.0.self_attn.{name}": torch.zeros(2) for name in names}
    rewrite(shard_with(damaged, NAME), lambda tensors: tensors.update(leftover))
    assert np.array_equal(logits(damaged, good[1]), logits(good[0], good[1]))


DRAFT = {f"model.layers.3.{name}": torch.zeros(2, 2) for name in ("eh_proj.weight", "mlp.experts.0.up_proj.weight")}


def test_layers_for_multi_token_prediction_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """DeepSeek-V3's checkpoints have one, which drafts tokens."""
    monkeypatch.setattr(logging.getLogger("vllm_mindspore"), "propagate", True)
    model = make_checkpoint(tmp_path / "plain", "DeepseekV3ForCausalLM")
    shutil.copytree(tmp_path / "plain", tmp_path / "drafting")
    rewrite(tmp_path / "drafting/model.safetensors", lambda tensors: tensors.update(DRAFT))
    assert "holds model.layers.3.eh_proj.weight, which the model that its config.json describes does not have" in (
        refusal(tmp_path / "drafting", model.config)
    )
    config = {**model.config.to_dict(), "num_nextn_predict_layers": 1}
    with caplog.at_level("INFO"):
        found = logits(tmp_path / "drafting", config)
    assert "2 weights of the 1 layer(s) for multi-token prediction are not used" in caplog.text
    assert np.array_equal(found, logits(tmp_path / "plain", model.config))


@pytest.mark.parametrize(
    "name", ["model.layers.1.mlp.experts.5.up_proj.weight", "model.layers.1.self_attn.kv_b_proj.weight"]
)
def test_a_weight_that_is_packed_in_parts_is_named_if_it_is_damaged(tmp_path: Path, name: str) -> None:
    def flip(tensors: dict[str, torch.Tensor]) -> None:
        tensors[name].view(torch.int32)[3, 4] |= 0x7F800000

    model = make_checkpoint(tmp_path, "DeepseekV3ForCausalLM")
    rewrite(tmp_path / "model.safetensors", flip)
    assert f"{name} holds a value that is not a finite number" in refusal(tmp_path, model.config)
    rewrite(tmp_path / "model.safetensors", lambda tensors: tensors.pop(name))
    assert f"has no tensor {name} in its weights" in refusal(tmp_path, model.config)


def test_a_tensor_of_another_shape_is_named(good: tuple[Path, Any], damaged: Path) -> None:
    rewrite(shard_with(damaged, NAME), lambda tensors: tensors.update({NAME: torch.zeros(48, 81)}))
    assert f"{NAME} has the shape [48, 81], where config.json asks for [48, 80]" in refusal(damaged, good[1])


def test_a_tensor_of_a_dtype_that_cannot_be_read_is_named(good: tuple[Path, Any], damaged: Path) -> None:
    rewrite(shard_with(damaged, NAME), lambda tensors: tensors.update({NAME: tensors[NAME].to(torch.int8)}))
    assert (
        f"{NAME} has the dtype int8 without {NAME}_scale beside it, only bfloat16, float16, float32 can be read"
        in refusal(damaged, good[1])
    )


def install_modelscope(monkeypatch: pytest.MonkeyPatch, snapshot_download: Callable[..., str]) -> None:
    client = types.ModuleType("modelscope.hub.snapshot_download")
    client.snapshot_download = snapshot_download  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, client.__name__, client)
    for name in ("modelscope", "modelscope.hub"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))


def test_models_are_fetched_from_modelscope_where_vllm_does_so(
    good: tuple[Path, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through the function of its client that vLLM's loaders call, with arguments that it has had since 1.18.1."""
    asked = []

    def snapshot_download(
        model_id: str,
        revision: str | None = None,
        cache_dir: str | None = None,
        *,
        local_files_only: bool = False,
        allow_patterns: list[str],
        ignore_patterns: list[str],
    ) -> str:
        asked.append((model_id, revision, local_files_only))
        for file in good[0].iterdir():
            wanted = any(fnmatch(file.name, pattern) for pattern in allow_patterns)
            if wanted and not any(fnmatch(file.name, pattern) for pattern in ignore_patterns):
                shutil.copy(file, cache_dir or tmp_path)
        return str(cache_dir or tmp_path)

    install_modelscope(monkeypatch, snapshot_download)
    load_model("me/mine", good[1], "float32", revision="v1", from_modelscope=True, show_progress=False, max_position=64)
    assert set(asked) == {("me/mine", "v1", False)}
    assert {file.name for file in tmp_path.iterdir()} == {
        "config.json",
        "model.safetensors.index.json",
        *(file.name for file in good[0].glob("*.safetensors")),
    }


@pytest.mark.parametrize(("from_modelscope", "home"), [(False, "HF_HOME"), (True, "MODELSCOPE_CACHE")])
def test_a_hub_is_asked_for_no_more_than_is_needed_and_for_nothing_if_offline(
    good: tuple[Path, Any], monkeypatch: pytest.MonkeyPatch, from_modelscope: bool, home: str
) -> None:
    asked: list[dict[str, Any]] = []

    def snapshot_download(model_id: str, **options: Any) -> str:
        asked.append(options)
        raise PermissionError(13, "Permission denied", "/somewhere")

    install_modelscope(monkeypatch, snapshot_download)
    monkeypatch.setattr(loader, "snapshot_download", snapshot_download)
    monkeypatch.setattr(loader, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=f"/somewhere is not writable. Set {home} or"):
        load_model(
            "me/mine", good[1], "float32", revision="v1", from_modelscope=from_modelscope, show_progress=False, max_position=64
        )  # fmt: skip
    (options,) = asked
    assert options["local_files_only"] is True
    assert options["revision"] == "v1"
    assert options["ignore_patterns"] == ["consolidated*", "adapter*"]


def test_a_name_that_is_no_model_is_refused(good: tuple[Path, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    assert "neither a folder nor the id of a model" in refusal(Path("/no/such/folder"), good[1])


@pytest.mark.parametrize(
    "key", ["vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"]
)
def test_a_key_missing_from_the_configuration_is_named(good: tuple[Path, Any], damaged: Path, key: str) -> None:
    from transformers import AutoConfig

    file = damaged / "config.json"
    content = json.loads(file.read_text())
    del content[key]
    file.write_text(json.dumps(content))
    config = AutoConfig.from_pretrained(damaged)
    assert refusal(damaged, config) == f"{file} has no {key}: add it, or fetch the checkpoint again."
    config.update({key: good[1].to_dict()[key]})  # as --hf-overrides does
    assert ModelConfig.from_hf(config, "float32", damaged) == ModelConfig.from_hf(good[1], "float32", good[0])


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"hidden_act": "gelu"}, "has hidden_act = 'gelu', it must be silu."),
        ({"num_key_value_heads": 3}, "has num_key_value_heads = 3, it must be a divisor of num_attention_heads, which is 4."),
        ({"head_dim": None, "hidden_size": 50}, "has num_attention_heads = 4, it must be a divisor of hidden_size, which is 50."),
        ({"num_hidden_layers": True}, "has num_hidden_layers = True, it must be a positive whole number."),
        ({"num_hidden_layers": 0}, "has num_hidden_layers = 0, it must be a positive whole number."),
        ({"vocab_size": "97"}, "has vocab_size = '97', it must be a positive whole number."),
        ({"rms_norm_eps": -1}, "has rms_norm_eps = -1, it must be a positive number."),
        ({"head_dim": 7}, "has head_dim = 7, it must be even."),
        ({"rope_scaling": {"rope_type": "longrope"}}, "it must be of the type default, linear, dynamic, llama3, yarn."),
        ({"rope_scaling": {"factor": 2.0}}, "it must be of the type default, linear"),
        ({"rope_scaling": {"type": "yarn", "beta_fast": 16}}, "it must be complete, factor is missing."),
        ({"rope_scaling": {"type": "dynamic"}}, "it must be complete, factor is missing."),
        ({"rope_scaling": {"type": "linear"}}, "it must be complete, factor is missing."),
        ({"rope_scaling": {"type": "linear", "factor": None}}, "it must be complete, factor is missing."),
        ({"rope_scaling": {"type": "linear", "factor": 0}}, "has rope_scaling.factor = 0, it must be a positive number."),
        ({"rope_scaling": {"type": "dynamic", "factor": "4.0"}}, "has rope_scaling.factor = '4.0', it must be a positive number."),
        ({"rope_scaling": {"type": ["yarn"], "factor": 2}}, "it must be of the type default, linear"),
        ({"rope_scaling": {"type": "yarn", "factor": 2, "attn_factor": 2.0}}, "has rope_scaling.attn_factor = 2.0, it must be 1.0."),
        ({"rope_scaling": {"type": "yarn", "factor": 2, "truncate": False}}, "has rope_scaling.truncate = False, it must be true."),
        ({"rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": 0.5}}, "has rope_parameters.partial_rotary_factor = 0.5, it must be 1.0."),
        ({"rope_parameters": {"rope_theta": 1e4}, "rope_scaling": {"type": "linear", "factor": 2}}, "it must be null, as there is rope_parameters."),
        ({"rope_theta": float("inf")}, "has rope_theta = inf, it must be a positive number."),
        ({"tie_word_embeddings": "false"}, "has tie_word_embeddings = 'false', it must be true or false."),
        ({"logit_scale": 0.5}, "has logit_scale = 0.5, it must be 1.0."),
        ({"final_logit_softcapping": 30.0}, "has final_logit_softcapping = 30.0, it must be null."),
        ({"attn_logit_softcapping": 50.0}, "has attn_logit_softcapping = 50.0, it must be null."),
        ({"partial_rotary_factor": 0.5}, "has partial_rotary_factor = 0.5, it must be 1.0."),
        ({"dual_chunk_attention_config": {"chunk_size": 8}}, "has dual_chunk_attention_config = {'chunk_size': 8}, it must be null."),
        ({"is_causal": False}, "has is_causal = False, it must be true."),
        ({"quantization_config": {"quant_method": "compressed-tensors", "sparsity_config": "x"}}, "has quantization_config.sparsity_config = 'x', it must be of the format dense."),
        ({"architectures": ["Qwen2ForCausalLM"], "use_sliding_window": True, "sliding_window": 5, "layer_types": ["sliding_attention"]}, "it must be full_attention or sliding_attention for each of 2 layers"),
        ({"architectures": ["GPT2LMHeadModel"]}, "it must be one of LlamaForCausalLM, MistralForCausalLM, Qwen2ForCausalLM, "),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)  # fmt: skip
def test_an_illegal_value_of_the_configuration_is_named(
    good: tuple[Path, Any], values: dict[str, Any], said: str
) -> None:
    with pytest.raises(UserError, match=re.escape(said)):
        ModelConfig.from_hf({**good[1].to_dict(), **values}, "float32", "somewhere")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"n_group": 3}, "has n_group = 3, it must be a divisor of n_routed_experts, which is 8."),
        ({"n_group": 8, "topk_group": 4}, "has n_group = 8, it must be at most half of n_routed_experts, which is 8."),
        ({"topk_group": 5}, "has topk_group = 5, it must be at most n_group and enough for 3 experts."),
        ({"topk_group": 1}, "has topk_group = 1, it must be at most n_group and enough for 3 experts."),
        ({"num_experts_per_tok": 9}, "has num_experts_per_tok = 9, it must be at most n_routed_experts, which is 8."),
        ({"n_routed_experts": 2048}, "has n_routed_experts = 2048, it must be at most 1024."),
        ({"topk_method": "greedy"}, "has topk_method = 'greedy', it must be noaux_tc, as scoring_func is sigmoid."),
        ({"scoring_func": "tanh"}, "has scoring_func = 'tanh', it must be one of sigmoid, softmax."),
        ({"attention_bias": True}, "has attention_bias = True, it must be false."),
        ({"qk_rope_head_dim": 7}, "has qk_rope_head_dim = 7, it must be even."),
        ({"kv_lora_rank": None}, "has no kv_lora_rank"),
        ({"first_k_dense_replace": -1}, "has first_k_dense_replace = -1, it must be a positive whole number."),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)  # fmt: skip
def test_an_illegal_value_of_deepseeks_configuration_is_named(values: dict[str, Any], said: str) -> None:
    config = make_model("DeepseekV3ForCausalLM").config.to_dict()
    with pytest.raises(UserError, match=re.escape(said)):
        ModelConfig.from_hf({**config, **values}, "float32", "somewhere")


LARGE = {"num_hidden_layers": 8, "vocab_size": 20000, "hidden_size": 768}
"""Weights of which the embedding is the largest by far."""


@pytest.mark.parametrize(
    ("architecture", "options"),
    [
        ("LlamaForCausalLM", {"intermediate_size": 6144, "head_dim": 64}),
        ("DeepseekV3ForCausalLM", {"moe_intermediate_size": 1024, "intermediate_size": 1024, "kv_lora_rank": 256, "num_attention_heads": 32, "num_key_value_heads": 32, "qk_nope_head_dim": 64, "v_head_dim": 64}),
    ],
    ids=["Llama", "DeepSeek"],
)  # fmt: skip
def test_weights_are_held_once(tmp_path: Path, architecture: str, options: dict[str, Any]) -> None:
    """What the process has in memory while it loads, the mapped file included, never exceeds the weights by more than the largest of them."""
    import subprocess
    import sys

    make_checkpoint(tmp_path, architecture, dtype="bfloat16", **LARGE, **options)
    script = f"""
import threading, time
from vllm_mindspore.bootstrap import import_mindspore
import_mindspore()
from transformers import AutoConfig
from vllm_mindspore.loader import load_model

def held():
    lines = open("/proc/self/status").read().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmRSS"))) / 1024

peak = before = held()
done = False
def watch():
    global peak
    while not done:
        peak = max(peak, held())
        time.sleep(0.001)
watcher = threading.Thread(target=watch)
watcher.start()
config = AutoConfig.from_pretrained({str(tmp_path)!r})
network = load_model({str(tmp_path)!r}, config, "bfloat16", show_progress=False, max_position=64)
done = True
watcher.join()
print(peak - before)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    weights = (tmp_path / "model.safetensors").stat().st_size / 2**20
    assert weights > 250
    largest = 20000 * 768 * 2 / 2**20
    assert float(done.stdout.splitlines()[-1]) < weights + largest + 10
