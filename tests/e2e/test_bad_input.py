"""What a user sees of a damaged model or machine: one sentence, an exit code, no hang."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.checkpoints import make_checkpoint
from tests.serving import executable, free_port

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, demo_model: Path) -> Path:
    """A small sharded checkpoint with the demo model's tokenizer."""
    folder = tmp_path_factory.mktemp("model")
    make_checkpoint(folder, "LlamaForCausalLM", dtype="bfloat16", vocab_size=49152, max_shard_size="2MB")
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        shutil.copy(demo_model / name, folder)
    return folder


def run(command: list[str], model: Path, *flags: str, **environment: str) -> tuple[int, str]:
    """Exit code and output of a server that must not start."""
    done = subprocess.run(
        [*command, str(model), "--port", str(free_port()), *flags],
        env={**os.environ, **environment}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=180,
    )  # fmt: skip
    return done.returncode, done.stdout


VLLM = [executable("vllm"), "serve"]
MODULE = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model"]


def remove_a_shard(folder: Path) -> None:
    next(folder.glob("model-00001*")).unlink()


def truncate_a_shard(folder: Path) -> None:
    shard = next(folder.glob("model-00001*"))
    shard.write_bytes(shard.read_bytes()[:-1000])


def remove_a_key(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    del config["intermediate_size"]
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("start", "damage", "said"),
    [
        (VLLM, remove_a_shard, r"model-00001\S* is missing, though model.safetensors.index.json lists it: fetch the checkpoint again."),
        (MODULE, truncate_a_shard, r"model-00001\S* is damaged or not complete \(.*\): fetch it again."),
        (VLLM, remove_a_key, r"config.json has no intermediate_size: add it, or fetch the checkpoint again."),
    ],
    ids=["missing shard", "truncated shard", "missing key"],
)  # fmt: skip
def test_a_damaged_model_is_named(tmp_path: Path, model: Path, start: list[str], damage: Any, said: str) -> None:
    folder = Path(shutil.copytree(model, tmp_path / "model"))
    damage(folder)
    code, output = run(start, folder)
    assert code != 0
    assert re.search(said, output), output


def test_a_cache_that_does_not_fit_is_refused_with_its_size(model: Path) -> None:
    code, output = run(VLLM, model, VLLM_CPU_KVCACHE_SPACE="100000")
    assert code != 0
    assert "A KV cache of 100000.00 GiB does not fit" in output
    assert "so lower VLLM_CPU_KVCACHE_SPACE." in output


def test_kernels_that_were_not_built_are_named(tmp_path: Path, model: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import vllm_mindspore.kernels.cpu.library as library\nlibrary._FILE = 'libnot_there.so'\n"
    )
    code, output = run(VLLM, model, PYTHONPATH=str(tmp_path))
    assert code != 0
    assert "The CPU kernels are not built" in output
    assert "vllm-mindspore check-env names the command." in output
