"""What every adapter of the V0 engine refuses at start-up, by name; an adapter adds what its release alone has.

One sentence each: what was asked for, and what to do instead. Options that have no meaning without a refused one (`--max-loras` without
`--enable-lora`) are not listed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import vllm.envs as envs
from vllm.config import LoadFormat

from vllm_mindspore.compat.common.refusal import StartupRefused, unsupported
from vllm_mindspore.compat.common.v0.network import dtype_name, network_config
from vllm_mindspore.errors import UserError
from vllm_mindspore.models.registry import supported_architectures

if TYPE_CHECKING:
    from vllm.config import VllmConfig

_IGNORED_BY_DEFAULT = ["original/**/*"]
_DTYPES = ("bfloat16", "float16", "float32")
_EXECUTORS = ("uni",)


def check(config: VllmConfig, *also: str) -> None:
    """Raise if the configuration asks for anything that we cannot do.

    Args:
        config: what vLLM made of the user's options.
        also: sentences that the release's adapter adds.

    Raises:
        StartupRefused: a line for each such thing.
    """
    # Quick to say first: most of these have to be changed before the model matters.
    sentences = [*_features(config), *_parallelism(config), *also] or [*_model(config)]
    if sentences:
        raise StartupRefused("\n".join(sentences))


def _features(config: VllmConfig) -> Iterator[str]:
    cache, load = config.cache_config, config.load_config
    if config.lora_config is not None:
        yield unsupported("LoRA", "remove --enable-lora")
    if config.speculative_config is not None:
        yield unsupported("speculative decoding", "remove the options for speculation")
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
    if load.load_format != LoadFormat.AUTO:
        name = getattr(load.load_format, "value", load.load_format)
        yield unsupported(
            f"--load-format {name}", "remove it; safetensors files are read, and pytorch_model.bin where there are none"
        )
    if load.ignore_patterns != _IGNORED_BY_DEFAULT:
        yield unsupported("--ignore-patterns", "remove it")
    if load.model_loader_extra_config:
        yield unsupported("--model-loader-extra-config", "remove it")
    if envs.VLLM_ATTENTION_BACKEND is not None:
        yield "VLLM_ATTENTION_BACKEND chooses among vLLM's torch kernels, which vllm-mindspore does not use: unset it."
    if envs.VLLM_TORCH_PROFILER_DIR is not None:
        yield unsupported("VLLM_TORCH_PROFILER_DIR (torch's profiler sees nothing of MindSpore)", "unset it")
    if config.observability_config.collect_model_forward_time or config.observability_config.collect_model_execute_time:
        yield unsupported("--collect-detailed-traces of the model and the worker", "remove it")


def _parallelism(config: VllmConfig) -> Iterator[str]:
    parallel = config.parallel_config
    for what, flag, size in (
        ("tensor", "--tensor-parallel-size", parallel.tensor_parallel_size),
        ("pipeline", "--pipeline-parallel-size", parallel.pipeline_parallel_size),
    ):
        if size > 1:
            yield unsupported(f"{what} parallelism", f"set {flag} to 1, it is {size}")
    backend = parallel.distributed_executor_backend
    if isinstance(backend, str) and backend not in _EXECUTORS:
        yield unsupported(f"--distributed-executor-backend {backend}", f"use {' or '.join(_EXECUTORS)}")


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
