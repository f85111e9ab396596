"""What is not there yet is refused before anything is loaded, by name; what is there means what vLLM's help says."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from vllm_mindspore.matrix import row_for_installed_vllm

pytestmark = pytest.mark.slow

CONFIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "torch_dtype": "bfloat16", "vocab_size": 128,
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1,
    "max_position_embeddings": 16384, "rms_norm_eps": 1e-5, "hidden_act": "silu", "tie_word_embeddings": True,
}  # fmt: skip
FOUR_BITS = {
    "quant_method": "compressed-tensors", "format": "pack-quantized", "quantization_status": "compressed", "ignore": ["lm_head"],
    "config_groups": {"group_0": {"targets": ["Linear"], "weights": {"num_bits": 4, "type": "int", "symmetric": True, "strategy": "group", "group_size": 32}}},
}  # fmt: skip


@pytest.fixture(autouse=True)
def no_choice_of_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """vLLM leaves its choice in the environment; it must not reach the next test."""
    monkeypatch.setenv("VLLM_USE_V1", "")
    monkeypatch.delenv("VLLM_USE_V1")


@pytest.fixture
def v0(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Configurations that reach the platform for the V0 engine of the installed vLLM, which is a stand-in here."""
    reached: list[Any] = []
    row = row_for_installed_vllm("V0")
    if row.engine != "V0":
        pytest.skip(f"vLLM {row.vllm} has no V0 engine")

    class MindSporePlatform:
        check_and_update_config = staticmethod(reached.append)

    module = ModuleType("platform")
    module.MindSporePlatform = MindSporePlatform  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, f"vllm_mindspore.compat.{row.adapter}.platform", module)
    return reached


def has(option: str) -> bool:
    """Whether the installed vLLM has an option at all."""
    from vllm import EngineArgs

    return option in EngineArgs.__dataclass_fields__


OF_RELEASE: dict[str, Any] = {
    "v0_8_3_v1": {"max_num_seqs": 1024, "float32": "float16"},
    "v0_9_1": {"max_num_seqs": 256, "float32": "bfloat16"},
}[row_for_installed_vllm("V1").adapter]
"""What V1 takes by default, and which dtype `auto` makes of a float32 checkpoint."""


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
        ({"pipeline_parallel_size": 2}, "pipeline parallelism"),
        ({"data_parallel_size": 2}, "set --data-parallel-size to 1"),
        ({"distributed_executor_backend": "external_launcher", "seed": 0}, "--distributed-executor-backend external_launcher yet: use uni or mp."),
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
        ({"enable_sleep_mode": True}, "Sleep mode is "),
        ({"model_impl": "transformers"}, "--model-impl transformers yet"),
        ({"additional_config": {"speed": "high"}}, "no options of its own in --additional-config"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)  # fmt: skip
def test_an_option_we_cannot_honour_is_refused_by_name(tmp_path: Path, options: dict[str, Any], said: str) -> None:
    from vllm.config import KVTransferConfig

    if not all(map(has, options)):
        pytest.skip(f"vLLM {row_for_installed_vllm().vllm} has no such option")
    if "kv_transfer_config" in options:
        options = {"kv_transfer_config": KVTransferConfig(**options["kv_transfer_config"])}
    with pytest.raises(Exception, match=f"(?i){re.escape(said)}"):
        configure(tmp_path, **options)
    configure(tmp_path)  # and the next engine of this process is none the worse


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("VLLM_ATTENTION_BACKEND", "FLASH_ATTN", "VLLM_ATTENTION_BACKEND chooses among vLLM's torch kernels"),
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


V0_ONLY = [
    {"scheduling_policy": "priority"},
    {"num_scheduler_steps": 4},
    {"scheduler_delay_factor": 0.5},
    {"preemption_mode": "swap"},
    {"max_num_partial_prefills": 2, "enable_chunked_prefill": True},
    {"guided_decoding_backend": "outlines"},
    {"logits_processor_pattern": "x"},
    {"disable_async_output_proc": True},
]
"""What V1 lacks in every release that has both engines."""


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("options", V0_ONLY, ids=lambda options: next(iter(options)))
def test_what_only_v0_has_runs_on_v0(tmp_path: Path, v0: list[Any], options: dict[str, Any], dtype: str) -> None:
    import vllm.envs as envs

    config = configure(tmp_path, dtype=dtype, **options)
    assert v0 == [config]
    assert not envs.VLLM_USE_V1
    assert config.parallel_config.worker_cls == "auto", "the rest is the other platform's"


def test_v0_runs_if_asked_for_in_any_dtype(tmp_path: Path, v0: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_USE_V1", "0")
    assert [configure(tmp_path), configure(tmp_path, dtype="float32")] == v0


def test_what_no_engine_can_do_is_refused_on_v0_too_and_v0_is_not_left_behind(tmp_path: Path, v0: list[Any]) -> None:
    from vllm_mindspore.compat.common.refusal import StartupRefused

    with pytest.raises(StartupRefused, match="remove --enable-lora"):
        configure(tmp_path, enable_lora=True, scheduling_policy="priority")
    assert "VLLM_USE_V1" not in os.environ
    configure(tmp_path)
    assert not v0


def test_asking_for_v1_and_for_what_it_lacks_is_refused(
    tmp_path: Path, v0: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from vllm_mindspore.compat.common.refusal import StartupRefused
    from vllm_mindspore.compat.common.v1 import engine_choice

    monkeypatch.setattr(engine_choice, "_USER_ASKED_FOR_V1", True)
    monkeypatch.setenv("VLLM_USE_V1", "1")
    with pytest.raises(StartupRefused, match="VLLM_USE_V1=1 asks for vLLM's V1 engine, which lacks the option"):
        configure(tmp_path, scheduling_policy="priority")
    assert not v0
    monkeypatch.setenv("VLLM_USE_V1", "1")
    configure(tmp_path, dtype="float32")
    assert os.environ["VLLM_USE_V1"] == "1"


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (
            {"architectures": ["LlavaForConditionalGeneration"], "model_type": "llava", "text_config": CONFIG},
            "multimodal models",
        ),
        ({"architectures": ["NobodysForCausalLM"]}, "no network for NobodysForCausalLM"),
        ({"hidden_act": "gelu"}, "hidden_act"),
        ({"quantization_config": FOUR_BITS}, "config_groups.group_0.weights.num_bits = 4, it must be 8."),
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


def test_defaults_are_those_of_vllms_v1_but_for_larger_blocks(tmp_path: Path) -> None:
    from vllm.usage.usage_lib import UsageContext

    configure(tmp_path)
    from vllm import EngineArgs

    config = EngineArgs(model=str(tmp_path), skip_tokenizer_init=True).create_engine_config(UsageContext.LLM_CLASS)
    assert config.scheduler_config.max_num_batched_tokens == 8192
    assert config.scheduler_config.max_num_seqs == OF_RELEASE["max_num_seqs"]
    assert config.scheduler_config.chunked_prefill_enabled
    assert config.cache_config.enable_prefix_caching
    assert config.cache_config.block_size == 64
    assert config.model_config.dtype.is_floating_point


@pytest.mark.parametrize(
    ("options", "checkpoint", "dtype"),
    [
        ({}, "bfloat16", "bfloat16"),
        ({}, "float16", "float16"),
        ({}, "float32", OF_RELEASE["float32"]),
        ({"dtype": "half"}, "bfloat16", "float16"),
        ({"dtype": "float32"}, "bfloat16", "float32"),
    ],
)
def test_dtype_means_what_vllm_says(tmp_path: Path, options: dict[str, Any], checkpoint: str, dtype: str) -> None:
    config = configure(tmp_path, {"torch_dtype": checkpoint}, **options)
    assert str(config.model_config.dtype) == f"torch.{dtype}"


def test_float32_runs_on_v1_with_v1s_defaults(tmp_path: Path) -> None:
    """vLLM would fall back to V0, which sizes a step for the longest prompt and does not cache prefixes."""
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


def test_processes_are_spawned_once_mindspore_is_loaded_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A child forked after MindSpore has run hangs."""
    monkeypatch.setitem(sys.modules, "mindspore", sys)
    monkeypatch.setenv("VLLM_WORKER_MULTIPROC_METHOD", "fork")
    configure(tmp_path)
    assert os.environ["VLLM_WORKER_MULTIPROC_METHOD"] == "spawn"
