"""Which options make vLLM 0.9.1 fall back to its V0 engine, as its `EngineArgs._is_v1_supported_oracle` lists them.

Asked only where the dtype is float32, for which vLLM falls back as well: `compat/common/v1/engine_choice.py`. What no engine here
can do is not listed: it is refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllm.config import SchedulerConfig

if TYPE_CHECKING:
    from vllm.config import VllmConfig

_V1_GUIDED_DECODING = ("auto", "xgrammar", "guidance")


def asks_for_v0(config: VllmConfig) -> bool:
    """Whether one of them is set to anything but its default."""
    model, scheduler, observability = config.model_config, config.scheduler_config, config.observability_config
    return (
        scheduler.policy != SchedulerConfig.policy
        or scheduler.num_scheduler_steps != SchedulerConfig.num_scheduler_steps
        or scheduler.delay_factor != SchedulerConfig.delay_factor
        or scheduler.preemption_mode is not None
        or scheduler.max_num_partial_prefills != SchedulerConfig.max_num_partial_prefills
        or scheduler.max_long_partial_prefills != SchedulerConfig.max_long_partial_prefills
        or model.logits_processor_pattern is not None
        or not model.use_async_output_proc
        or config.decoding_config.backend not in _V1_GUIDED_DECODING
        or observability.otlp_traces_endpoint is not None
        or observability.collect_detailed_traces is not None
    )
