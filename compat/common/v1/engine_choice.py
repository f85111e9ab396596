"""Make V1 the engine, whatever vLLM would choose for a platform that it does not know, and leave to V0 what V1 lacks.

`EngineArgs.create_engine_config` settles the matter through the environment variable `VLLM_USE_V1`, in this order: it calls
`Platform.pre_register_and_update`; walks through a list of options that its V1 lacks, float32 among them, and falls back to V0 at the
first one; asks `Platform.supports_v1`; falls back to V0 for any platform that is "experimental", unless the variable is set; writes the
variable; builds the `VllmConfig`, which calls `Platform.check_and_update_config`. The platform calls the functions of this module there.

As in plain vLLM the variable keeps the last choice, for child processes, and a 0 in it also for the next engine of this process.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Callable

import torch
from vllm.logger import init_logger

from vllm_mindspore.compat.common.refusal import StartupRefused

if TYPE_CHECKING:
    from vllm.config import VllmConfig

logger = init_logger("vllm_mindspore.compat.common.v1.engine_choice")

_VARIABLE = "VLLM_USE_V1"
_USER_ASKED_FOR_V1 = os.environ.get(_VARIABLE) == "1"
"""Looked at while vLLM is being imported: later it may be vLLM's own choice for an engine before."""
_V0_SCHEDULER = "vllm.core.scheduler.Scheduler"
_V1_SCHEDULER = "vllm.v1.core.sched.scheduler.Scheduler"
_LARGEST_DEFAULT_STEP = 8192
"""`max_num_batched_tokens` that vLLM's V1 gives to `LLM` by default."""
_SMALLEST_DEFAULT_STEP = 2048

_vllm_chooses = False
"""Between `begin` and the end of the configuration, if the user did not ask for V0."""


def begin() -> None:
    """Before vLLM chooses: drop an explicit 1, which is our default and would turn fallbacks into tracebacks."""
    global _vllm_chooses
    _vllm_chooses = os.environ.get(_VARIABLE) != "0"
    if _vllm_chooses:
        os.environ.pop(_VARIABLE, None)


def choose_v1() -> None:
    """Once vLLM found nothing that its V1 lacks: choose V1 before it falls back from an "experimental" platform."""
    os.environ[_VARIABLE] = "1"


def settle(vllm_config: VllmConfig, asks_for_v0: Callable[[VllmConfig], bool]) -> bool:
    """Whether this configuration runs on V1. Undoes a fallback for float32, in which our V1 computes.

    vLLM's reason against float32 in V1 is flash attention, which we do not use.

    Args:
        asks_for_v0: whether there is an option, the dtype apart, for which vLLM falls back to V0.

    Raises:
        StartupRefused: the user asked for V1 and for something that it lacks.
    """
    global _vllm_chooses
    if os.environ.get(_VARIABLE) != "0":
        _vllm_chooses = False
        choose_v1()
        return True
    if not _vllm_chooses:
        return False
    if vllm_config.model_config.dtype is torch.float32 and not asks_for_v0(vllm_config):
        _vllm_chooses = False
        choose_v1()
        logger.info("float32 runs on the V1 engine here, whatever the warning above says.")
        adopt_v1_defaults(vllm_config)
        return True
    if _USER_ASKED_FOR_V1:
        raise StartupRefused(
            f"{_VARIABLE}=1 asks for vLLM's V1 engine, which lacks the option named in vLLM's warning above: remove that option or unset {_VARIABLE}."
        )
    return False


def forget() -> None:
    """Drop vLLM's choice for a configuration that was refused, so that the next engine of this process is none the worse."""
    if _vllm_chooses:
        os.environ.pop(_VARIABLE, None)


def adopt_v1_defaults(vllm_config: VllmConfig) -> None:
    """Turn a configuration that vLLM made for V0 into what it makes for V1."""
    scheduler, cache = vllm_config.scheduler_config, vllm_config.cache_config
    if scheduler.scheduler_cls == _V0_SCHEDULER:
        scheduler.scheduler_cls = _V1_SCHEDULER
    if cache.enable_prefix_caching is None:
        cache.enable_prefix_caching = True
    if cache.prefix_caching_hash_algo is None:
        cache.prefix_caching_hash_algo = "builtin"
    whole_prompt = max(scheduler.max_model_len, _SMALLEST_DEFAULT_STEP)
    if not scheduler.chunked_prefill_enabled and scheduler.max_num_batched_tokens == whole_prompt:
        # V0 sized the step for a whole prompt; V1 cuts prompts into chunks.
        step = max(scheduler.max_num_seqs, min(whole_prompt, _LARGEST_DEFAULT_STEP))
        scheduler.max_num_batched_tokens = step
        scheduler.max_num_encoder_input_tokens = scheduler.encoder_cache_size = step
    scheduler.enable_chunked_prefill = scheduler.chunked_prefill_enabled = True
