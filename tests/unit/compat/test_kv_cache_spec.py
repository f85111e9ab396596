"""vLLM's V1 divides the memory by what it believes a block to take: more than a block takes wastes it, less overruns it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from tests.checkpoints import make_model
from vllm_mindspore.bootstrap import import_mindspore
from vllm_mindspore.compat.v0_9_1.worker import MindSporeWorker
from vllm_mindspore.engine import memory
from vllm_mindspore.models.config import ModelConfig


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("architecture", ["LlamaForCausalLM", "DeepseekV3ForCausalLM"])
def test_vllms_block_our_figure_and_the_cache_itself_are_of_one_size(architecture: str, dtype: str) -> None:
    import_mindspore()
    from vllm_mindspore.engine.kv_cache import KVCache

    config = ModelConfig.from_hf(make_model(architecture).config, dtype, "a test")
    worker = SimpleNamespace(
        network_config=config,
        cache_config=SimpleNamespace(block_size=16),
        model_config=SimpleNamespace(dtype=getattr(torch, dtype)),
    )
    spec = MindSporeWorker.get_kv_cache_spec(worker)  # type: ignore[arg-type]
    ours = memory.kv_cache_bytes_per_block(config, 16)
    assert sum(layer.page_size_bytes for layer in spec.values()) == ours
    assert sum(array.nbytes for array in KVCache(config, 3, 16)._blocks) == 3 * ours
