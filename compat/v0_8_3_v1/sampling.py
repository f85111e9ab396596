"""Which row of the grammar bitmask is whose."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vllm.v1.core.sched.output import SchedulerOutput


def bitmask_rows(scheduler_output: SchedulerOutput) -> Mapping[str, int]:
    """The scheduler's bitmask has a row for every running request, those without a grammar included."""
    return scheduler_output.structured_output_request_ids
