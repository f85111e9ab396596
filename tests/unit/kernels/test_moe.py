"""Mixtures of experts: who is chosen, what is sent where, each expert's own product, and the sum of the answers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.kernels import abi, reference
from tests.unit.kernels.test_matmul import draw_rows, draw_weight, rounds_activations
from vllm_mindspore.kernels.cpu import library

EXAMPLES = settings.get_profile("kernels")
SEEDS = st.integers(0, 2**32 - 1)
COUNTS = {"rows": st.integers(0, 20), "padding": st.integers(0, 3)}


@EXAMPLES
@given(
    seed=SEEDS,
    groups=st.integers(1, 9),
    size=st.integers(2, 20),
    normalize=st.booleans(),
    scale=st.sampled_from([1.0, 2.5, 16.0]),
    kinds=st.sampled_from([3, 10**6]),
    data=st.data(),
    **COUNTS,
)
@pytest.mark.parametrize("name", ["fused_add_topk_div", "moe_gating_topk_softmax"])
def test_experts_are_chosen_within_the_best_groups(
    isa: str,
    name: str,
    seed: int,
    groups: int,
    size: int,
    normalize: bool,
    scale: float,
    kinds: int,
    rows: int,
    padding: int,
    data: st.DataObject,
) -> None:
    """DeepSeek-V3's choice and DeepSeek-V2's; few kinds of logits make ties."""
    chosen_groups = data.draw(st.integers(1, groups))
    chosen = data.draw(st.integers(1, min(12, chosen_groups * size)))
    rng = np.random.default_rng(seed)
    values = rng.standard_normal(kinds) * 3
    logits = rng.choice(values, (rows + padding, groups * size)).astype(np.float32)
    sigmoid = name == "fused_add_topk_div"
    best_of_group = 2 if sigmoid else 1
    # Biases of a few kinds too, some below all scores: the choice stays in the groups then as well.
    bias = rng.choice(np.float32([-2.0, 0.125, 0.25]), groups * size) if sigmoid else None
    settings_ = [abi.count(value) for value in (groups, chosen_groups, best_of_group, int(normalize))]
    inputs: list[Any] = [logits, *([bias] if sigmoid else []), *settings_, np.float32([scale]), abi.count(rows)]
    shape = (rows + padding, chosen)
    weights, experts = abi.call(name, inputs, shape, shape, dtype=[np.float32, np.int32])
    exact, expected = reference.gating(
        logits[:rows], bias, chosen, groups, chosen_groups, best_of_group, normalize, scale
    )
    assert (experts[:rows] == expected).all()
    assert (np.abs(weights[:rows] - exact) <= (groups * size + 20) * reference.U * exact).all()
    assert (weights[rows:] == abi.UNTOUCHED).all()
    assert (experts[rows:] == abi.UNTOUCHED).all()


def test_too_many_experts_are_refused(isa: str) -> None:
    inputs: list[Any] = [np.zeros((1, 1025), np.float32), *[abi.count(1)] * 4, np.float32([1]), abi.count(1)]
    with pytest.raises(AssertionError, match="moe_gating_topk_softmax returned 1"):
        abi.call("moe_gating_topk_softmax", inputs, (1, 2), (1, 2), dtype=[np.float32, np.int32])


@EXAMPLES
@given(seed=SEEDS, experts=st.integers(1, 12), width=st.integers(1, 40), chosen=st.integers(1, 4), **COUNTS)
def test_rows_are_sorted_by_expert_and_come_back(
    isa: str, seed: int, experts: int, width: int, chosen: int, rows: int, padding: int
) -> None:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((rows + padding, width)).astype(np.float32)
    idx = rng.integers(0, experts, (rows + padding, chosen), dtype=np.int32)
    total, sent = (rows + padding) * chosen, rows * chosen
    outputs = (total, width), (total,), (experts,)
    expanded, positions, ends = abi.call(
        "moe_init_routing", [x, idx, abi.count(rows)], *outputs, dtype=[np.float32, np.int32, np.int32]
    )
    # Stable, so that the rows of an expert are in the order of the tokens.
    order = np.argsort(idx[:rows].ravel(), kind="stable")
    assert (expanded[:sent] == x[order // chosen]).all()
    assert (positions[:sent][order] == np.arange(sent)).all()
    assert (ends == np.bincount(idx[:rows].ravel(), minlength=experts).cumsum()).all()
    assert (expanded[sent:] == abi.UNTOUCHED).all()
    assert (positions[sent:] == abi.UNTOUCHED).all()

    probs = rng.standard_normal((rows + padding, chosen)).astype(np.float32)
    inputs = [expanded, positions, probs, abi.count(rows)]
    (result,) = abi.call("moe_token_unpermute", inputs, (rows + padding, width))
    exact = x[:rows] * probs[:rows].astype(np.float64).sum(1, keepdims=True)
    bound = (chosen + 1) * reference.U * np.abs(x[:rows]) * np.abs(probs[:rows]).sum(1, keepdims=True)
    assert (np.abs(result[:rows] - exact) <= bound).all()
    assert (result[rows:] == abi.UNTOUCHED).all()


def stack(groups: list[list[np.ndarray]], dtype: str, interleave: bool = False) -> np.ndarray:
    return np.stack([library.pack_weight(parts, dtype, dtype, interleave) for parts in groups])


@EXAMPLES
@given(
    seed=SEEDS,
    counts=st.lists(st.sampled_from([0, 0, 1, 2, 13, 30]), min_size=1, max_size=6),
    n=st.integers(1, 70),
    k=st.integers(1, 80),
    padding=st.integers(0, 3),
)
def test_each_expert_multiplies_its_own_rows(
    isa: str, dtype: str, seed: int, counts: list[int], n: int, k: int, padding: int
) -> None:
    """Plain and gated products; experts without rows are not even read."""
    rng = np.random.default_rng(seed)
    rows = sum(counts)
    x = draw_rows(rng, rows + padding, k)
    gates, ups = ([draw_weight(rng, n, k, dtype) for _ in counts] for _ in range(2))
    ends = np.cumsum(counts, dtype=np.int32)
    plain, gated = stack([[g] for g in gates], dtype), stack([[g, u] for g, u in zip(gates, ups)], dtype, True)
    (result,) = abi.call("grouped_matmul", [x, plain, ends], (rows + padding, n))
    (activated,) = abi.call("grouped_matmul_swiglu", [x, gated, ends], (rows + padding, n))
    for gate, up, end, count in zip(gates, ups, ends, counts):
        own = slice(end - count, end)
        halves = [reference.matmul(x[own], weight, rounds_activations(isa, dtype)) for weight in (gate, up)]
        reference.assert_within(result[own], *halves[0])
        with np.errstate(over="ignore"):
            reference.assert_within(activated[own], *reference.swiglu(*halves[0], *halves[1]))
    assert (result[rows:] == abi.UNTOUCHED).all()
    assert (activated[rows:] == abi.UNTOUCHED).all()


def test_many_rows_of_wide_experts(isa: str, dtype: str) -> None:
    """So many that an expert's rows pass in several blocks, and that an item takes several panels."""
    rng = np.random.default_rng(3)
    counts = [120, 0, 1, 212]
    weights = [draw_weight(rng, 600, 1501, dtype) for _ in counts]
    x, ends = draw_rows(rng, 333, 1501), np.cumsum(counts, dtype=np.int32)
    (result,) = abi.call("grouped_matmul", [x, stack([[w] for w in weights], dtype), ends], (333, 600))
    for weight, end, count in zip(weights, ends, counts):
        if count:
            own = slice(end - count, end)
            reference.assert_within(result[own], *reference.matmul(x[own], weight, rounds_activations(isa, dtype)))


def test_a_row_has_the_same_bits_whoever_shares_its_expert(isa: str, dtype: str) -> None:
    """And as the plain product gives; with every number of threads."""
    rng = np.random.default_rng(0)
    weights = [draw_weight(rng, 75, 97, dtype) for _ in range(3)]
    x, packed = draw_rows(rng, 40, 97), stack([[w] for w in weights], dtype)
    expected = np.concatenate(
        [abi.call("matmul", [x[i : i + 1], packed[0 if i < 25 else 2], abi.count(1)], (1, 75))[0] for i in range(40)]
    )
    for number in 1, 2, 3, 5:
        with abi.threads(number):
            (result,) = abi.call("grouped_matmul", [x, packed, np.array([25, 25, 40], np.int32)], (40, 75))
        assert result.tobytes() == expected.tobytes(), f"{number} threads"


@EXAMPLES
@given(seed=SEEDS, width=st.integers(1, 200), **COUNTS)
def test_sum_of_rows(isa: str, seed: int, width: int, rows: int, padding: int) -> None:
    x1, x2 = np.random.default_rng(seed).standard_normal((2, rows + padding, width)).astype(np.float32)
    (result,) = abi.call("add", [x1, x2, abi.count(rows)], x1.shape)
    assert (result[:rows] == (x1 + x2)[:rows]).all()
    assert (result[rows:] == abi.UNTOUCHED).all()


@EXAMPLES
@given(seed=SEEDS, width=st.integers(1, 200), **COUNTS)
def test_rows_by_their_gates(isa: str, seed: int, width: int, rows: int, padding: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((rows + padding, width)).astype(np.float32)
    gate = rng.choice(np.float32([-200, -3.5, 0, 0.1, 200]), (rows + padding, 1))
    (result,) = abi.call("sigmoid_mul", [x, gate, abi.count(rows)], x.shape)
    exact = x[:rows] / (1 + np.exp(-gate[:rows].astype(np.float64)))
    assert (np.abs(result[:rows] - exact) <= 10 * reference.U * np.abs(exact) + 1e-30).all()
    assert (result[rows:] == abi.UNTOUCHED).all()


def test_a_gate_that_is_no_number_does_not_become_one(isa: str) -> None:
    gate = np.array([[0.0], [np.nan]], np.float32)
    (result,) = abi.call("sigmoid_mul", [np.ones((2, 40), np.float32), gate, abi.count(2)], (2, 40))
    assert (result[0] == 0.5).all()
    assert np.isnan(result[1]).all()


@pytest.mark.parametrize("ends", [[-1, 5, 2**31 - 1], [9, 2, -7], [5, 5, 5]])
def test_a_wrong_group_list_stays_within_the_tensors(isa: str, ends: list[int]) -> None:
    x, packed = np.ones((5, 8), np.float32), stack([[np.ones((4, 8), np.float32)]] * 3, "float32")
    (result,) = abi.call("grouped_matmul", [x, packed, np.array(ends, np.int32)], (5, 4))
    assert (result == 8).all()
