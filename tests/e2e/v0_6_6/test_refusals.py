"""What is not there yet is refused before anything is loaded, by name; what is there means what vLLM 0.6.6's help says."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

pytestmark = pytest.mark.slow

CONFIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "torch_dtype": "bfloat16", "vocab_size": 128,
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1,
    "max_position_embeddings": 16384, "rms_norm_eps": 1e-5, "hidden_act": "silu", "tie_word_embeddings": True,
}  # fmt: skip


def configure(path: Path, config: dict[str, Any] | None = None, **options: Any) -> Any:
    from vllm import EngineArgs

    path.joinpath("config.json").write_text(json.dumps({**CONFIG, **(config or {})}))
    return EngineArgs(model=str(path), skip_tokenizer_init=True, **options).create_engine_config()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"enable_lora": True}, "does not support LoRA yet: remove --enable-lora."),
        ({"speculative_model": "[ngram]", "num_speculative_tokens": 2, "ngram_prompt_lookup_max": 3}, "does not support speculative decoding yet"),
        ({"tensor_parallel_size": 2}, "tensor parallelism yet: set --tensor-parallel-size to 1, it is 2."),
        ({"pipeline_parallel_size": 2}, "Pipeline parallelism is not supported for this model"),
        ({"distributed_executor_backend": "ray"}, "does not support --distributed-executor-backend ray yet: use mp."),
        ({"worker_use_ray": True}, "does not support --distributed-executor-backend ray yet: use mp."),
        ({"device": "cuda"}, "--device cuda names a device of vLLM's own, and vllm-mindspore runs on MindSpore: remove it."),
        ({"task": "embed"}, "does not support --task embed yet"),
        ({"task": "classify"}, "does not support --task classify yet"),
        ({"quantization": "fp8"}, "asks for fp8"),
        ({"quantization": "bitsandbytes", "load_format": "bitsandbytes"}, "asks for bitsandbytes"),
        ({"load_format": "dummy"}, "--load-format dummy yet"),
        ({"load_format": "sharded_state"}, "--load-format sharded_state yet"),
        ({"kv_cache_dtype": "fp8"}, "--kv-cache-dtype fp8 yet"),
        ({"enable_prompt_adapter": True, "max_prompt_adapter_token": 8}, "remove --enable-prompt-adapter."),
        ({"cpu_offload_gb": 1}, "remove --cpu-offload-gb"),
        ({"kv_transfer_config": {"kv_connector": "PyNcclConnector", "kv_role": "kv_both"}}, "remove --kv-transfer-config."),
        ({"collect_detailed_traces": "all", "otlp_traces_endpoint": "grpc://localhost:1"}, "OpenTelemetry is not available"),  # vLLM does not require it
        ({"ignore_patterns": ["*.bin"]}, "--ignore-patterns"),
        ({"model_loader_extra_config": {"a": 1}}, "--model-loader-extra-config"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)  # fmt: skip
def test_an_option_we_cannot_honour_is_refused_by_name(tmp_path: Path, options: dict[str, Any], said: str) -> None:
    from vllm.config import KVTransferConfig

    if "kv_transfer_config" in options:
        options = {"kv_transfer_config": KVTransferConfig(**options["kv_transfer_config"])}
    with pytest.raises(Exception, match=re.escape(said)):
        configure(tmp_path, **options)
    configure(tmp_path)  # and the next engine of this process is none the worse


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("VLLM_USE_V1", "1", "VLLM_USE_V1=1 asks for the early V1 engine of vLLM 0.6.6"),
        ("VLLM_ATTENTION_BACKEND", "TORCH_SDPA", "VLLM_ATTENTION_BACKEND chooses among vLLM's torch kernels"),
        ("VLLM_TORCH_PROFILER_DIR", "profile", "VLLM_TORCH_PROFILER_DIR"),
    ],
)
def test_a_variable_we_cannot_honour_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, said: str
) -> None:
    from vllm_mindspore.compat.common.refusal import StartupRefused

    monkeypatch.setenv(variable, value)
    with pytest.raises(StartupRefused, match=said):
        configure(tmp_path)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"architectures": ["LlavaForConditionalGeneration"], "model_type": "llava", "text_config": CONFIG}, "multimodal models"),
        ({"architectures": ["BartForConditionalGeneration"], "model_type": "bart"}, "encoder-decoder models"),
        ({"architectures": ["OPTForCausalLM"]}, "no network for OPTForCausalLM"),
        ({"hidden_act": "gelu"}, "hidden_act"),
    ],
)  # fmt: skip
def test_a_model_we_do_not_have_is_refused_by_name(tmp_path: Path, config: dict[str, Any], said: str) -> None:
    from vllm_mindspore.compat.common.refusal import StartupRefused

    with pytest.raises(StartupRefused, match=said):
        configure(tmp_path, config)


def test_what_the_platform_fills_in(tmp_path: Path) -> None:
    from vllm_mindspore.compat.v0_6_6.executor import OneWorkerExecutor

    for backend in (None, "mp"):
        config = configure(tmp_path, distributed_executor_backend=backend)
        assert config.parallel_config.distributed_executor_backend is OneWorkerExecutor
    assert config.parallel_config.worker_cls == "vllm_mindspore.compat.v0_6_6.worker.MindSporeWorker"
    assert config.cache_config.block_size == 16
    assert config.device_config.device == torch.device("cpu")
    assert config.model_config.use_async_output_proc
    assert config.scheduler_config.max_num_batched_tokens == 16384, "a whole prompt: V0 does not cut it by default"
    assert not config.cache_config.enable_prefix_caching


@pytest.mark.parametrize(
    ("options", "checkpoint", "dtype"),
    [
        ({}, "bfloat16", "bfloat16"),
        ({}, "float16", "float16"),
        ({}, "float32", "float16"),  # as the "auto" of vLLM 0.6.6 does with float32 checkpoints
        ({"dtype": "half"}, "bfloat16", "float16"),
        ({"dtype": "float32"}, "bfloat16", "float32"),
    ],
)
def test_dtype_means_what_vllm_says(tmp_path: Path, options: dict[str, Any], checkpoint: str, dtype: str) -> None:
    config = configure(tmp_path, {"torch_dtype": checkpoint}, **options)
    assert str(config.model_config.dtype) == f"torch.{dtype}"


def test_options_of_the_engine_stay_what_the_user_chose(tmp_path: Path) -> None:
    config = configure(
        tmp_path, block_size=32, disable_async_output_proc=True, preemption_mode="swap", scheduling_policy="priority",
        num_scheduler_steps=4, enable_prefix_caching=True, guided_decoding_backend="outlines",
    )  # fmt: skip
    assert config.cache_config.block_size == 32
    assert config.cache_config.enable_prefix_caching
    assert not config.model_config.use_async_output_proc
    assert (config.scheduler_config.preemption_mode, config.scheduler_config.policy) == ("swap", "priority")
    assert config.scheduler_config.num_scheduler_steps == 4
    assert config.decoding_config.guided_decoding_backend == "outlines"
