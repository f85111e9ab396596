"""How much memory the KV cache gets, and what is said when it does not fit."""

from __future__ import annotations

from typing import Any

import pytest

from vllm_mindspore.compat.common.kv_budget import GIB, kv_cache_budget
from vllm_mindspore.errors import UserError

MACHINE: dict[str, Any] = {
    "requested": None, "utilization": 0.5, "total": 16 * GIB, "available": 12 * GIB, "weights": 2 * GIB, "activations": 1 * GIB
}  # fmt: skip


def budget(**changes: Any) -> int:
    return kv_cache_budget(**{**MACHINE, **changes})


def test_utilization_covers_weights_activations_and_cache() -> None:
    assert budget() == (8 - 2 - 1) * GIB


def test_what_others_use_is_left_alone() -> None:
    assert budget(available=4 * GIB) == (4 - 1) * GIB


def test_space_asked_for_is_given_exactly_whatever_the_utilization() -> None:
    assert budget(requested=(7 * GIB, "X"), utilization=0.01) == 7 * GIB


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"requested": (12 * GIB, "VLLM_CPU_KVCACHE_SPACE")}, r"12\.00 GiB does not fit: 12\.00 GiB .* lower VLLM_CPU_KVCACHE_SPACE"),
        ({"available": GIB // 2}, r"0\.50 GiB are free .* lower --max-num-batched-tokens"),
        ({"utilization": 0.1}, r"--gpu-memory-utilization 0\.1 of 16\.00 GiB leaves nothing"),
    ],
)  # fmt: skip
def test_a_cache_that_does_not_fit_is_refused_with_figures_and_remedy(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        budget(**changes)
