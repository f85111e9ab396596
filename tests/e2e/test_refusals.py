"""What is not there yet is refused before anything is loaded, by name; what is there means what vLLM's help says."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

CONFIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "torch_dtype": "bfloat16", "vocab_size": 128,
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1,
    "max_position_embeddings": 16384, "rms_norm_eps": 1e-5, "hidden_act": "silu", "tie_word_embeddings": True,
}  # fmt: skip


@pytest.fixture(autouse=True)
def no_choice_of_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """vLLM leaves its choice in the environment; it must not reach the next test."""
    monkeypatch.setenv("VLLM_USE_V1", "1")


def configure(path: Path, config: dict[str, Any] | None = None, **options: Any) -> Any:
    from vllm import EngineArgs

    path.joinpath("config.json").write_text(json.dumps({**CONFIG, **(config or {})}))
    return EngineArgs(model=str(path), skip_tokenizer_init=True, **options).create_engine_config()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"enable_lora": True}, "does not support LoRA yet: remove --enable-lora."),
        ({"speculative_config": {"method": "ngram", "num_speculative_tokens": 2, "prompt_lookup_max": 3}}, "remove --speculative-config"),
        ({"tensor_parallel_size": 2}, "tensor parallelism yet: set --tensor-parallel-size to 1, it is 2."),
        ({"pipeline_parallel_size": 2}, "Pipeline parallelism is not supported for this model"),
        ({"data_parallel_size": 2}, "set --data-parallel-size to 1"),
        ({"distributed_executor_backend": "external_launcher"}, "--distributed-executor-backend external_launcher yet: use uni or mp."),
        ({"task": "embed"}, "does not support --task embed yet"),
        ({"task": "classify"}, "does not support --task classify yet"),
        ({"quantization": "fp8"}, "asks for fp8"),
        ({"load_format": "dummy"}, "--load-format dummy yet"),
        ({"load_format": "sharded_state"}, "--load-format sharded_state yet"),
        ({"kv_cache_dtype": "fp8"}, "--kv-cache-dtype fp8 yet"),
        ({"enable_prompt_adapter": True, "max_prompt_adapter_token": 8}, "remove --enable-prompt-adapter."),
        ({"enable_prompt_embeds": True}, "remove --enable-prompt-embeds."),
        ({"cpu_offload_gb": 1}, "remove --cpu-offload-gb"),
        ({"calculate_kv_scales": True}, "remove --calculate-kv-scales"),
        ({"kv_transfer_config": {"kv_connector": "SharedStorageConnector", "kv_role": "kv_both"}}, "remove --kv-transfer-config."),
        ({"enable_sleep_mode": True}, "Sleep mode is not supported on current platform"),
        ({"model_impl": "transformers"}, "--model-impl transformers yet"),
        ({"additional_config": {"speed": "high"}}, "no options of its own in --additional-config"),
        ({"scheduling_policy": "priority"}, "vLLM 0.9.1 has --scheduling-policy only in its V0 engine"),
        ({"num_scheduler_steps": 4}, "--num-scheduler-steps only in its V0 engine"),
        ({"scheduler_delay_factor": 0.5}, "--scheduler-delay-factor only in its V0 engine"),
        ({"preemption_mode": "swap"}, "--preemption-mode only in its V0 engine"),
        ({"max_num_partial_prefills": 2, "enable_chunked_prefill": True}, "--max-num-partial-prefills only in its V0 engine"),
        ({"guided_decoding_backend": "outlines"}, "--guided-decoding-backend only in its V0 engine"),
        ({"logits_processor_pattern": "x"}, "--logits-processor-pattern only in its V0 engine"),
        ({"disable_async_output_proc": True}, "chose its V0 engine for the option named in its warning"),
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
        ("VLLM_USE_V1", "0", "VLLM_USE_V1=0 asks for vLLM's V0 engine"),
        ("VLLM_ATTENTION_BACKEND", "TORCH_SDPA_VLLM_V1", "VLLM_ATTENTION_BACKEND chooses among vLLM's torch kernels"),
        ("VLLM_TORCH_PROFILER_DIR", "/tmp", "VLLM_TORCH_PROFILER_DIR"),
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
        (
            {"architectures": ["LlavaForConditionalGeneration"], "model_type": "llava", "text_config": CONFIG},
            "multimodal models",
        ),
        ({"architectures": ["NobodysForCausalLM"]}, "no network for NobodysForCausalLM"),
        ({"hidden_act": "gelu"}, "hidden_act"),
        ({"num_key_value_heads": 3, "num_attention_heads": 4}, "num_key_value_heads"),
    ],
)
def test_a_model_we_do_not_have_is_refused_by_name(tmp_path: Path, config: dict[str, Any], said: str) -> None:
    from vllm_mindspore.compat.common.refusal import StartupRefused

    with pytest.raises(StartupRefused, match=said):
        configure(tmp_path, config)


def test_everything_refused_is_said_at_once(tmp_path: Path) -> None:
    from vllm_mindspore.compat.common.refusal import StartupRefused

    with pytest.raises(StartupRefused) as refusal:
        configure(tmp_path, enable_lora=True, cpu_offload_gb=1)
    assert [line.split(":")[0] for line in str(refusal.value).splitlines()] == [
        "vllm-mindspore does not support LoRA yet",
        "vllm-mindspore does not support weight offloading yet",
    ]


def test_defaults_are_those_of_vllms_v1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VLLM_USE_V1")
    from vllm.usage.usage_lib import UsageContext

    configure(tmp_path)
    from vllm import EngineArgs

    config = EngineArgs(model=str(tmp_path), skip_tokenizer_init=True).create_engine_config(UsageContext.LLM_CLASS)
    assert config.scheduler_config.max_num_batched_tokens == 8192
    assert config.scheduler_config.max_num_seqs == 256
    assert config.scheduler_config.chunked_prefill_enabled
    assert config.cache_config.enable_prefix_caching
    assert config.cache_config.block_size == 16
    assert config.model_config.dtype.is_floating_point


@pytest.mark.parametrize(
    ("options", "checkpoint", "dtype"),
    [
        ({}, "bfloat16", "bfloat16"),
        ({}, "float16", "float16"),
        ({}, "float32", "bfloat16"),  # as vLLM's "auto" does with float32 checkpoints
        ({"dtype": "half"}, "bfloat16", "float16"),
        ({"dtype": "float32"}, "bfloat16", "float32"),
    ],
)
def test_dtype_means_what_vllm_says(tmp_path: Path, options: dict[str, Any], checkpoint: str, dtype: str) -> None:
    config = configure(tmp_path, {"torch_dtype": checkpoint}, **options)
    assert str(config.model_config.dtype) == f"torch.{dtype}"


def test_float32_runs_on_v1_with_v1s_defaults(tmp_path: Path) -> None:
    """vLLM 0.9.1 would fall back to V0, which sizes a step for the longest prompt and does not cache prefixes."""
    import vllm.envs as envs

    config = configure(tmp_path, dtype="float32")
    assert envs.VLLM_USE_V1
    assert config.scheduler_config.scheduler_cls == "vllm.v1.core.sched.scheduler.Scheduler"
    assert config.scheduler_config.chunked_prefill_enabled
    assert config.scheduler_config.max_num_batched_tokens == 8192
    assert config.cache_config.enable_prefix_caching


def test_what_the_user_chose_for_float32_stays(tmp_path: Path) -> None:
    config = configure(
        tmp_path, dtype="float32", max_num_batched_tokens=48, max_num_seqs=7, enable_prefix_caching=False, enable_chunked_prefill=True
    )  # fmt: skip
    assert config.scheduler_config.max_num_batched_tokens == 48
    assert config.scheduler_config.max_num_seqs == 7
    assert not config.cache_config.enable_prefix_caching


def test_enforce_eager_is_accepted_with_a_word_of_what_it_does_not_do(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    import logging

    monkeypatch.setattr(logging.getLogger("vllm_mindspore"), "propagate", True)
    configure(tmp_path, enforce_eager=True)
    assert "--enforce-eager turns nothing off here" in caplog.text


def test_processes_are_spawned_once_mindspore_is_loaded_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A child forked after MindSpore has run hangs."""
    import os
    import sys

    monkeypatch.setitem(sys.modules, "mindspore", sys)
    monkeypatch.setenv("VLLM_WORKER_MULTIPROC_METHOD", "fork")
    configure(tmp_path)
    assert os.environ["VLLM_WORKER_MULTIPROC_METHOD"] == "spawn"
