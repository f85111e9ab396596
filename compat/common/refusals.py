"""What every adapter refuses at start-up, by name; an adapter adds what its release and engine alone have.

One sentence each: what was asked for, and what to do instead. Options that have no meaning without a refused one (`--max-loras` without
`--enable-lora`) are not listed.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from vllm_mindspore.compat.common.network import dtype_name, network_config
from vllm_mindspore.compat.common.refusal import StartupRefused, unsupported
from vllm_mindspore.errors import UserError
from vllm_mindspore.models.registry import supported_architectures

if TYPE_CHECKING:
    from vllm.config import VllmConfig

_IGNORED_BY_DEFAULT = ["original/**/*"]
_DTYPES = ("bfloat16", "float16", "float32")


def check(config: VllmConfig, executors: tuple[str, ...], particular: Iterable[str] = ()) -> None:
    """Raise if the configuration asks for anything that we cannot do.

    Args:
        config: what vLLM made of the user's options.
        executors: values of `--distributed-executor-backend` that the engine runs on.
        particular: sentences about options that only this release or engine has.

    Raises:
        StartupRefused: a line for each such thing.
    """
    # Quick to say first: most of these have to be changed before the model matters.
    sentences = [*_features(config), *particular, *_parallelism(config, executors)] or [*_model(config)]
    if sentences:
        raise StartupRefused("\n".join(sentences))


def scaled_kv_caches(config: VllmConfig) -> Iterator[str]:
    """From vLLM 0.7 on."""
    if config.cache_config.calculate_kv_scales:
        yield unsupported("scaled KV caches", "remove --calculate-kv-scales")


def other_implementations(config: VllmConfig) -> Iterator[str]:
    """From vLLM 0.7 on."""
    if config.model_config.model_impl == "transformers":
        yield unsupported("--model-impl transformers", "remove it; the network is MindSpore's")
    if config.additional_config:
        yield f"vllm-mindspore has no options of its own in --additional-config: remove {config.additional_config}."


def data_parallelism(config: VllmConfig) -> Iterator[str]:
    """From vLLM 0.8 on."""
    parallel = config.parallel_config
    if parallel.data_parallel_size > 1:
        yield _too_many("data", "--data-parallel-size", parallel.data_parallel_size)
    if parallel.enable_expert_parallel:
        yield unsupported("expert parallelism", "remove --enable-expert-parallel")


def other_inputs(config: VllmConfig) -> Iterator[str]:
    """From vLLM 0.9 on."""
    if config.model_config.enable_prompt_embeds:
        yield unsupported("prompt embeddings as input", "remove --enable-prompt-embeds")
    if config.load_config.pt_load_map_location != "cpu":
        yield unsupported("--pt-load-map-location other than cpu", "remove it")


def _features(config: VllmConfig) -> Iterator[str]:
    cache, load, observability = config.cache_config, config.load_config, config.observability_config
    if config.lora_config is not None:
        yield unsupported("LoRA", "remove --enable-lora")
    if config.speculative_config is not None:
        yield unsupported("speculative decoding", "remove --speculative-config (--speculative-model in older releases)")
    if config.prompt_adapter_config is not None:
        yield unsupported("prompt adapters", "remove --enable-prompt-adapter")
    if config.kv_transfer_config is not None and config.kv_transfer_config.kv_connector is not None:
        yield unsupported("KV cache transfer", "remove --kv-transfer-config")
    if cache.cache_dtype != "auto":
        yield unsupported(f"--kv-cache-dtype {cache.cache_dtype}", "remove it; the cache has the model's dtype")
    if cache.cpu_offload_gb > 0:
        yield unsupported(
            "weight offloading", "remove --cpu-offload-gb; on this device the weights are in CPU memory anyway"
        )
    load_format = _name(load.load_format)
    if load_format != "auto":
        yield unsupported(
            f"--load-format {load_format}",
            "remove it; safetensors files are read, and pytorch_model.bin where there are none",
        )
    if load.ignore_patterns != _IGNORED_BY_DEFAULT:
        yield unsupported("--ignore-patterns", "remove it")
    if load.model_loader_extra_config:
        yield unsupported("--model-loader-extra-config", "remove it")
    if os.environ.get("VLLM_ATTENTION_BACKEND") is not None:
        yield "VLLM_ATTENTION_BACKEND chooses among vLLM's torch kernels, which vllm-mindspore does not use: unset it."
    if os.environ.get("VLLM_TORCH_PROFILER_DIR") is not None:
        yield unsupported("VLLM_TORCH_PROFILER_DIR (torch's profiler sees nothing of MindSpore)", "unset it")
    if observability.collect_model_forward_time or observability.collect_model_execute_time:
        yield unsupported("--collect-detailed-traces of the model and the worker", "remove it")


def _name(value: Any) -> Any:
    """Of an enumeration's member, or the value itself."""
    return getattr(value, "value", value)


def _too_many(what: str, flag: str, size: int) -> str:
    return unsupported(f"{what} parallelism", f"set {flag} to 1, it is {size}")


def _parallelism(config: VllmConfig, executors: tuple[str, ...]) -> Iterator[str]:
    parallel = config.parallel_config
    if parallel.tensor_parallel_size > 1:
        yield _too_many("tensor", "--tensor-parallel-size", parallel.tensor_parallel_size)
    if parallel.pipeline_parallel_size > 1:
        yield _too_many("pipeline", "--pipeline-parallel-size", parallel.pipeline_parallel_size)
    backend = parallel.distributed_executor_backend
    if isinstance(backend, str) and backend not in executors:
        yield unsupported(f"--distributed-executor-backend {backend}", f"use {' or '.join(executors) or 'none'}")


def _model(config: VllmConfig) -> Iterator[str]:
    model = config.model_config
    known = supported_architectures()
    architectures = getattr(model.hf_config, "architectures", None) or []
    if model.is_multimodal_model:
        yield unsupported("multimodal models", f"{model.model} is one; serve a text model")
    elif model.is_encoder_decoder:
        yield unsupported("encoder-decoder models", f"{model.model} is one; serve a decoder-only model")
    elif not set(architectures) & set(known):
        names = ", ".join(architectures) or "no architecture at all"
        yield f"vllm-mindspore has no network for {names}, which {model.model} asks for: it has {', '.join(known)}."
    elif model.task != "generate":
        yield unsupported(f"--task {model.task}", "it only generates text")
    elif dtype_name(config) not in _DTYPES:
        yield f"vllm-mindspore cannot compute in {dtype_name(config)}: use --dtype {', '.join(_DTYPES)}."
    else:
        try:
            network_config(config)
        except UserError as error:
            yield str(error)
