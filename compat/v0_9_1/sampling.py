"""Which row of the grammar bitmask is whose."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vllm.v1.core.sched.output import SchedulerOutput


def bitmask_rows(scheduler_output: SchedulerOutput) -> Mapping[str, int]:
    """Row j of the scheduler's bitmask belongs to the j-th of `structured_output_request_ids` in the order of their values."""
    positions = scheduler_output.structured_output_request_ids
    return {request_id: row for row, request_id in enumerate(sorted(positions, key=positions.__getitem__))}
