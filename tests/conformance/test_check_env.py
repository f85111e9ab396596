"""`check-env` in the environment of each release of vLLM, right and broken. Once for a release: it looks at both engines' packages alike."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from packaging.specifiers import SpecifierSet

from tests.check_env import SMALL_LLAMA, distribute, problems, report
from tests.engines import ROW, environment
from vllm_mindspore.cli.checks import CHECKS
from vllm_mindspore.cli.checks.model import positions
from vllm_mindspore.matrix import rows_for_installed_vllm
from vllm_mindspore.models.config import ModelConfig

pytestmark = pytest.mark.skipif(rows_for_installed_vllm()[0] != ROW, reason="is run with the release's default engine")

ROPES: dict[str, dict[str, Any]] = {
    "none": {},
    "default": {"rope_type": "default"},
    "linear": {"rope_type": "linear", "factor": 4.0},
    "dynamic, by its old key": {"type": "dynamic", "factor": 2.0},
    "yarn": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 1024},
    "llama3": {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 1024,
    },
}
"""What the networks follow; longrope and mrope they refuse by name."""
UNREADABLE = ("factor", "original_max_position_embeddings")
"""vLLM, or transformers, ends in a KeyError where yarn lacks one of these."""


@pytest.mark.slow
def test_a_right_environment_is_found_right(command: str, demo_model: Path) -> None:
    told = report(command, "--model", str(demo_model), **environment())
    assert told["healthy"], problems(told)
    assert told["causes"] == []
    assert [check["name"] for check in told["checks"]] == [check.NAME for check in CHECKS]
    assert told["row"] == {"extra": ROW.extra, "vllm": ROW.vllm, "engine": ROW.engine, "adapter": ROW.adapter}
    texts = "\n".join(finding["text"] for check in told["checks"] for finding in check["findings"])
    assert "numpy, torch, tokenizers, transformers, vllm, mindspore can be imported" in texts
    assert f"vLLM is what adapter {ROW.adapter} was written for" in texts
    assert "a right answer" in texts
    assert "runs a graph on the device CPU" in texts
    assert f"vLLM activates vllm_mindspore.compat.{ROW.adapter}.platform.MindSporePlatform" in texts
    assert "It fits: weights 0.25 GiB" in texts


@pytest.mark.slow
def test_wrong_transformers_are_named_before_what_they_break(command: str, tmp_path: Path) -> None:
    distribute(tmp_path, "transformers", "5.1.0")
    (tmp_path / "transformers.py").write_text(
        "raise ValueError(\"'aimv2' is already used by a Transformers config\")\n"
    )
    told = report(command, "--only", "packages", "imports", "drift", "platform-plugin", site=tmp_path, **environment())
    first, *rest = problems(told)
    needs = SpecifierSet(ROW.everywhere["transformers"])
    assert first == ("packages", f"transformers 5.1.0, vLLM {ROW.vllm} needs {needs}", None)
    assert told["causes"] == ["packages"]
    assert {name for name, _, _ in rest} == {"imports", "platform-plugin"}
    assert {cause for _, _, cause in rest} == {"packages"}


def write_config(folder: Path, rope_scaling: dict[str, Any]) -> dict[str, Any]:
    config = {**SMALL_LLAMA, "model_type": "llama"}
    if rope_scaling:
        config["rope_scaling"] = rope_scaling
    (folder / "config.json").write_text(json.dumps(config))
    return config


def longest_by_vllm(model: Path) -> int:
    from vllm.engine.arg_utils import EngineArgs

    longest: int = EngineArgs(model=str(model), skip_tokenizer_init=True).create_model_config().max_model_len
    return longest


@pytest.mark.parametrize("name", ROPES)
def test_a_context_may_be_as_long_as_vllm_lets_it_be(name: str, tmp_path: Path) -> None:
    network = ModelConfig.from_hf(write_config(tmp_path, ROPES[name]), "bfloat16", tmp_path)
    assert positions(network) == longest_by_vllm(tmp_path)


def test_vllm_does_not_hear_of_what_transformers_5_writes(tmp_path: Path) -> None:
    config = write_config(tmp_path, {})
    parameters = {**ROPES["yarn"], "rope_theta": 1e4}
    (tmp_path / "config.json").write_text(json.dumps({**config, "rope_parameters": parameters}))
    assert longest_by_vllm(tmp_path) == config["max_position_embeddings"]


@pytest.mark.parametrize(
    "told", [{"torch_dtype": "bfloat16"}, {"torch_dtype": "float16"}, {"torch_dtype": "float32"}, {"dtype": "bfloat16"}]
)
def test_the_dtype_is_the_one_that_vllm_takes(command: str, told: dict[str, str], tmp_path: Path) -> None:
    from vllm.engine.arg_utils import EngineArgs

    config = {key: value for key, value in write_config(tmp_path, {}).items() if key != "torch_dtype"}
    (tmp_path / "config.json").write_text(json.dumps({**config, **told}))
    taken = str(EngineArgs(model=str(tmp_path), skip_tokenizer_init=True).create_model_config().dtype)[len("torch.") :]
    found = report(command, "--only", "model", "--model", str(tmp_path), **environment())
    texts = [finding["text"] for check in found["checks"] for finding in check["findings"]]
    said = taken if told.get("torch_dtype") == taken else "16 bits, as vLLM chooses"
    assert f"LlamaForCausalLM is known, and runs in {said}" in texts
    assert taken in ("bfloat16", "float16")


@pytest.mark.parametrize("key", UNREADABLE)
def test_settings_of_yarn_that_vllm_cannot_read_are_named(command: str, key: str, tmp_path: Path) -> None:
    write_config(tmp_path, {name: value for name, value in ROPES["yarn"].items() if name != key})
    with pytest.raises(KeyError, match=key):
        longest_by_vllm(tmp_path)
    told = report(command, "--only", "model", "--model", str(tmp_path), **environment())
    assert any(f"yarn and lacks {key}" in text for _, text, _ in problems(told))
