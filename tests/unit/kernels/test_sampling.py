"""The draw of tokens, held against transformers' logits warpers and numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from transformers.generation.logits_process import (
    MinPLogitsWarper,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from tests.unit.kernels import abi
from vllm_mindspore.kernels.cpu.sampling import sample

EXAMPLES = settings.get_profile("kernels")
SEEDS = st.integers(0, 2**32 - 1)
DARTS = (np.arange(257) + 0.5) / 257
"""Thrown at one row, they find every token that has more than 1/257 of the probability as often as it is due."""


def probabilities(logits: np.ndarray, **bounds: float) -> np.ndarray:
    """What a row is drawn from, in float64, by transformers."""
    warpers: dict[str, Any] = {
        "temperature": TemperatureLogitsWarper, "top_k": TopKLogitsWarper, "top_p": TopPLogitsWarper, "min_p": MinPLogitsWarper,
    }  # fmt: skip
    scores = torch.from_numpy(logits[None].astype(np.float64))
    for name, warper in warpers.items():
        if name in bounds:
            scores = warper(bounds[name])(None, scores)
    return scores.softmax(-1)[0].numpy()


def throw(logits: np.ndarray, darts: np.ndarray = DARTS, **bounds: float) -> np.ndarray:
    """The tokens that are drawn from one row with these numbers."""
    rows = np.repeat(logits[None], len(darts), 0)
    return sample(rows, darts, **{name: np.full(len(darts), bound) for name, bound in bounds.items()})


def agrees(tokens: np.ndarray, expected: np.ndarray, darts: np.ndarray = DARTS) -> bool:
    """Whether each token holds the place in the running sum of probabilities that its dart hits, to what float32 can tell."""
    ends = np.cumsum(expected)
    return bool(
        (expected[tokens] > 0).all()
        and (ends[tokens] >= darts - 1e-5).all()
        and (ends[tokens] - expected[tokens] <= darts + 1e-5).all()
    )


@EXAMPLES
@given(
    seed=SEEDS,
    vocabulary=st.integers(1, 900),
    spread=st.sampled_from([0.0, 0.1, 3.0, 30.0]),
    bounds=st.fixed_dictionaries(
        {},
        optional={
            "temperature": st.sampled_from([0.01, 0.3, 1.0, 2.5]),
            "top_k": st.integers(1, 1000),
            "top_p": st.floats(0.01, 0.999),
            "min_p": st.floats(0.001, 0.999),
        },
    ),
)
def test_tokens_are_drawn_as_often_as_transformers_would(
    isa: str, seed: int, vocabulary: int, spread: float, bounds: dict[str, float]
) -> None:
    rng = np.random.default_rng(seed)
    # Steps wide enough that float32 and float64 agree on the order, in an order of their own: no two are the same.
    logits = (spread * np.linspace(-2, 2, vocabulary) + rng.choice([-30.0, 0.0, 30.0])).astype(np.float32)
    if spread:
        rng.shuffle(logits)
    else:
        bounds = {name: bound for name, bound in bounds.items() if name in ("temperature", "top_k")}
    expected = probabilities(logits, **bounds)
    if "top_p" in bounds:  # in the last digit of a sum a bound may fall either side of a token
        for other in (1 - 1e-6, 1 + 1e-6):
            moved = probabilities(logits, **{**bounds, "top_p": bounds["top_p"] * other})
            assume((moved > 0).sum() == (expected > 0).sum())
    assert agrees(throw(logits, **bounds), expected)


@pytest.mark.parametrize("top_k", [1, 3, 4, 6, 7])
def test_tokens_that_equal_the_last_of_the_top_k_are_left(isa: str, top_k: int) -> None:
    logits = np.float32([1, 3, 2, 3, 2, 3, 2, 0])
    expected = probabilities(logits, top_k=top_k)
    assert (
        len(set(throw(logits, top_k=top_k).tolist()))
        == (expected > 0).sum()
        == (3 if top_k <= 3 else 6 if top_k <= 6 else 7)
    )
    assert agrees(throw(logits, top_k=top_k), expected)


@pytest.mark.parametrize("top_p", [0.0, 1e-9, 0.125, 0.5])
def test_of_equals_top_p_leaves_as_many_as_hold_the_mass(isa: str, top_p: float) -> None:
    drawn = set(throw(np.zeros(40, np.float32), top_p=top_p).tolist())
    assert len(drawn) == max(1, round(40 * top_p))


@pytest.mark.parametrize("bounds", [{}, {"top_k": 3}, {"top_p": 0.9}, {"top_k": 7, "top_p": 0.5, "min_p": 0.1}])
def test_what_is_masked_is_never_drawn(isa: str, bounds: dict[str, float]) -> None:
    """As by a grammar, which may leave fewer tokens than top-k asks for, at either end of the vocabulary."""
    logits = np.full(700, -np.inf, np.float32)
    logits[[0, 350, 699]] = [1.0, 1.1, 0.9]
    darts = np.append(DARTS, [0.0, np.nextafter(1, 0)])
    tokens = throw(logits, darts, **bounds)
    assert agrees(tokens, probabilities(logits, **bounds), darts)
    assert tokens[-2] == min(tokens)
    assert tokens[-1] == max(tokens)


def test_a_broken_row_gives_a_token_and_disturbs_no_other(isa: str) -> None:
    """vLLM looks the token up, so it has to be one."""
    rng = np.random.default_rng(0)
    good = rng.standard_normal(130).astype(np.float32)
    rows = np.stack([good, np.full(130, np.nan, np.float32), np.full(130, -np.inf, np.float32), good, good])
    rows[3, ::2] = np.nan
    rows[4, 77] = np.inf
    for bounds in ({}, {"top_k": np.full(5, 100), "top_p": np.full(5, 0.9), "min_p": np.full(5, 0.01)}):
        tokens = sample(rows, np.full(5, 0.7), **bounds)
        assert ((tokens >= 0) & (tokens < 130)).all()
        assert tokens[3] % 2 == 1
        assert tokens[4] == 77
        assert tokens[0] == sample(good[None], np.array([0.7]), **{name: one[:1] for name, one in bounds.items()})[0]


def test_bounds_are_each_rows_own_whatever_shares_the_rows(isa: str) -> None:
    rng = np.random.default_rng(1)
    logits = (4 * rng.standard_normal((37, 5000))).astype(np.float32)
    uniform = rng.random(37)
    bounds = {"temperature": rng.uniform(0.2, 2, 37), "top_k": rng.integers(0, 6000, 37), "top_p": rng.uniform(0.1, 1.2, 37), "min_p": rng.choice([0, 0.1], 37)}  # fmt: skip
    with abi.threads(3):
        together = sample(logits, uniform, **bounds)
    with abi.threads(1):
        alone = [sample(logits[i : i + 1], uniform[i : i + 1], **{name: one[i : i + 1] for name, one in bounds.items()})[0] for i in range(37)]  # fmt: skip
    assert together.tolist() == alone
