"""What the V1 adapters refuse at start-up, by name.

One sentence each: what was asked for, and what to do instead. Options that have no meaning without a refused one (`--max-loras` without
`--enable-lora`) are not listed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import vllm.envs as envs
from vllm.config import LoadFormat

from vllm_mindspore.compat.common.network import dtype_name, network_config
from vllm_mindspore.compat.common.refusal import StartupRefused
from vllm_mindspore.errors import UserError
from vllm_mindspore.models.registry import supported_architectures

if TYPE_CHECKING:
    from vllm.config import VllmConfig

_IGNORED_BY_DEFAULT = ["original/**/*"]
_DTYPES = ("bfloat16", "float16", "float32")
_EXECUTORS = ("uni", "mp")


def check(config: VllmConfig, particular: Iterable[str]) -> None:
    """Raise if the configuration asks for anything that we cannot do.

    Args:
        particular: sentences about options that only this vLLM release has.

    Raises:
        StartupRefused: a line for each such thing.
    """
    # Quick to say first: most of these have to be changed before the model matters.
    sentences = [*_features(config), *particular, *_parallelism(config)] or [*_model(config)]
    if sentences:
        raise StartupRefused("\n".join(sentences))


def unsupported(what: str, remedy: str) -> str:
    """A sentence about something that we may do one day."""
    return f"vllm-mindspore does not support {what} yet: {remedy}."


def _features(config: VllmConfig) -> Iterator[str]:
    model, cache, load = config.model_config, config.cache_config, config.load_config
    if config.lora_config is not None:
        yield unsupported("LoRA", "remove --enable-lora")
    if config.speculative_config is not None:
        yield unsupported("speculative decoding", "remove --speculative-config")
    if config.prompt_adapter_config is not None:
        yield unsupported("prompt adapters", "remove --enable-prompt-adapter")
    if config.kv_transfer_config is not None and config.kv_transfer_config.kv_connector is not None:
        yield unsupported("KV cache transfer", "remove --kv-transfer-config")
    if cache.cache_dtype != "auto":
        yield unsupported(f"--kv-cache-dtype {cache.cache_dtype}", "remove it; the cache has the model's dtype")
    if cache.calculate_kv_scales:
        yield unsupported("scaled KV caches", "remove --calculate-kv-scales")
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
    if model.model_impl == "transformers":
        yield unsupported("--model-impl transformers", "remove it; the network is MindSpore's")
    if config.additional_config:
        yield f"vllm-mindspore has no options of its own in --additional-config: remove {config.additional_config}."
    if envs.VLLM_ATTENTION_BACKEND is not None:
        yield "VLLM_ATTENTION_BACKEND chooses among vLLM's torch kernels, which vllm-mindspore does not use: unset it."
    if envs.VLLM_TORCH_PROFILER_DIR is not None:
        yield unsupported("VLLM_TORCH_PROFILER_DIR (torch's profiler sees nothing of MindSpore)", "unset it")


def _parallelism(config: VllmConfig) -> Iterator[str]:
    parallel = config.parallel_config
    for what, flag, size in (
        ("tensor", "--tensor-parallel-size", parallel.tensor_parallel_size),
        ("pipeline", "--pipeline-parallel-size", parallel.pipeline_parallel_size),
        ("data", "--data-parallel-size", parallel.data_parallel_size),
    ):
        if size > 1:
            yield unsupported(f"{what} parallelism", f"set {flag} to 1, it is {size}")
    if parallel.enable_expert_parallel:
        yield unsupported("expert parallelism", "remove --enable-expert-parallel")
    backend = parallel.distributed_executor_backend
    if isinstance(backend, str) and backend not in _EXECUTORS:
        yield unsupported(f"--distributed-executor-backend {backend}", "use uni or mp")


def _model(config: VllmConfig) -> Iterator[str]:
    model = config.model_config
    known = supported_architectures()
    if model.is_multimodal_model:
        yield unsupported("multimodal models", f"{model.model} is one; serve a text model")
    elif model.is_encoder_decoder:
        yield unsupported("encoder-decoder models", f"{model.model} is one; serve a decoder-only model")
    elif not set(model.architectures) & set(known):
        names = ", ".join(model.architectures) or "no architecture at all"
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
