"""Make V1 the engine, whatever vLLM 0.9.1 would choose for a platform that it does not know.

`EngineArgs.create_engine_config` settles the matter through the environment variable `VLLM_USE_V1`, in this order: it calls
`Platform.pre_register_and_update`; walks through a list of options that its V1 lacks, float32 among them, and falls back to V0 at the
first one; asks `Platform.supports_v1`; falls back to V0 for any platform that is "experimental", unless the variable is set; writes the
variable; builds the `VllmConfig`, which calls `Platform.check_and_update_config`. The platform calls the functions of this module there.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import torch
from vllm.logger import init_logger

from vllm_mindspore.compat.common.refusal import StartupRefused

if TYPE_CHECKING:
    from vllm.config import VllmConfig

logger = init_logger("vllm_mindspore.compat.v0_9_1.engine_choice")

_VARIABLE = "VLLM_USE_V1"
_V0_SCHEDULER = "vllm.core.scheduler.Scheduler"
_V1_SCHEDULER = "vllm.v1.core.sched.scheduler.Scheduler"
_LARGEST_DEFAULT_STEP = 8192
"""`max_num_batched_tokens` that vLLM's V1 gives to `LLM` by default."""
_SMALLEST_DEFAULT_STEP = 2048


def begin() -> None:
    """Before vLLM chooses: refuse V0; drop an explicit 1, which is our default and would turn fallbacks into tracebacks.

    Raises:
        StartupRefused: the user asked for V0.
    """
    choice = os.environ.pop(_VARIABLE, "1")
    if choice == "0":
        os.environ[_VARIABLE] = choice
        raise StartupRefused(
            f"{_VARIABLE}=0 asks for vLLM's V0 engine, which vllm-mindspore does not run with vLLM 0.9.1 yet: unset {_VARIABLE}."
        )


def choose_v1() -> None:
    """Once vLLM found nothing that its V1 lacks: choose V1 before it falls back from an "experimental" platform."""
    os.environ[_VARIABLE] = "1"


def undo_fallback() -> bool:
    """Choose V1 although vLLM chose V0, and tell whether it had."""
    fell_back = os.environ.get(_VARIABLE) == "0"
    choose_v1()
    return fell_back


def adopt_v1_defaults(vllm_config: VllmConfig) -> None:
    """Turn a configuration that vLLM made for V0 because of float32 into what it makes for V1.

    vLLM's reason against float32 in V1 is flash attention, which we do not use.

    Raises:
        StartupRefused: vLLM chose V0 for another reason.
    """
    if vllm_config.model_config.dtype is not torch.float32:
        raise StartupRefused(
            "vLLM 0.9.1 chose its V0 engine for the option named in its warning above, and vllm-mindspore runs V1 only: remove that option."
        )
    logger.info("float32 runs on the V1 engine here, whatever the warning above says.")
    scheduler, cache = vllm_config.scheduler_config, vllm_config.cache_config
    if scheduler.scheduler_cls == _V0_SCHEDULER:
        scheduler.scheduler_cls = _V1_SCHEDULER
    if cache.enable_prefix_caching is None:
        cache.enable_prefix_caching = True
    whole_prompt = max(scheduler.max_model_len, _SMALLEST_DEFAULT_STEP)
    if not scheduler.chunked_prefill_enabled and scheduler.max_num_batched_tokens == whole_prompt:
        # V0 sized the step for a whole prompt; V1 cuts prompts into chunks.
        step = max(scheduler.max_num_seqs, min(whole_prompt, _LARGEST_DEFAULT_STEP))
        scheduler.max_num_batched_tokens = step
        scheduler.max_num_encoder_input_tokens = scheduler.encoder_cache_size = step
    scheduler.enable_chunked_prefill = scheduler.chunked_prefill_enabled = True
