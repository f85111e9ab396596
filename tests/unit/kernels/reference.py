"""What the operators should compute, in numpy and float64, and how far float32 may be from it.

Bounds follow Higham, "Accuracy and Stability of Numerical Algorithms": a sum of n products computed in any order differs from the exact one by
at most about n * U * sum(|a| * |b|).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

U = 2.0**-24
"""Unit roundoff of float32."""

ROUNDING_ISAS = ("amx", "avx512bf16")
"""Instruction sets that round activations to bfloat16 beside weights or a cache of it, and take tiny numbers for zero then."""


def to_bfloat16(x: np.ndarray) -> np.ndarray:
    """Bits of the nearest bfloat16, ties to even, by scaling each value until its last kept bit is worth 1."""
    with np.errstate(all="ignore"):
        exact = np.asarray(x, np.float32).astype(np.float64)
        _, exponent = np.frexp(np.where(np.isfinite(exact), exact, 1.0))
        quantum = np.exp2(np.maximum(exponent, -125) - 8.0)  # 8 significant bits, fewer below 2^-126
        rounded = np.where(np.isfinite(exact), np.rint(exact / quantum) * quantum, exact)
        return (rounded.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)


def to_dtype(x: np.ndarray, dtype: str) -> np.ndarray:
    """float32 in the storage of a model dtype."""
    if dtype == "bfloat16":
        return to_bfloat16(x)
    with np.errstate(over="ignore"):
        return np.asarray(x, np.float32).astype(dtype)


def to_double(stored: np.ndarray) -> np.ndarray:
    """Values of an array that holds a model dtype; uint16 is bfloat16."""
    if stored.dtype == np.uint16:
        return (stored.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    with np.errstate(invalid="ignore"):  # signalling NaNs
        return stored.astype(np.float64)


def same_values(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two stored arrays hold the same bits, any NaN being as good as another."""
    bits = f"u{a.itemsize}"
    nan = np.isnan(to_double(a)) & np.isnan(to_double(b))
    return a.dtype == b.dtype and bool((nan | (a.view(bits) == b.view(bits))).all())


def assert_within(result: np.ndarray, exact: np.ndarray, bound: np.ndarray) -> None:
    error = np.abs(result - exact)
    assert (error <= bound).all(), (
        f"off by {error.max()}, {np.max(error / np.maximum(bound, 1e-300)):.2f} times the bound"
    )


def matmul(x: np.ndarray, weight: np.ndarray, rounds_activations: bool) -> tuple[np.ndarray, np.ndarray]:
    """`x [T, K] @ weight [N, K].T` and its bound; bfloat16 dot products round x to bfloat16 first."""
    left = to_double(to_bfloat16(x)) if rounds_activations else x.astype(np.float64)
    right = to_double(weight)
    return left @ right.T, (x.shape[1] + 2) * U * (np.abs(left) @ np.abs(right).T)


def swiglu(gate: np.ndarray, gate_bound: np.ndarray, up: np.ndarray, up_bound: np.ndarray) -> tuple[np.ndarray, ...]:
    """`silu(gate) * up` and its bound: the slope of silu is below 1.1; 1e-30 is for gates where e^-gate overflows."""
    silu = gate / (1 + np.exp(-gate))
    bound = 1.1 * gate_bound * (np.abs(up) + up_bound) + np.abs(silu) * up_bound + 10 * U * np.abs(silu * up) + 1e-30
    return silu * up, bound


def rms_norm(x: np.ndarray, gamma: np.ndarray, epsilon: float) -> np.ndarray:
    """Each `len(gamma)` floats of a row of x `[T, C]` over their root mean square."""
    groups = x.astype(np.float64).reshape(len(x), x.shape[1] // len(gamma), len(gamma))
    scale = 1 / np.sqrt((groups**2).mean(-1, keepdims=True) + np.float64(np.float32(epsilon)))
    return (groups * scale * gamma).reshape(x.shape)


def rope(
    x: np.ndarray, cos: np.ndarray, sin: np.ndarray, positions: np.ndarray, head_dim: int
) -> tuple[np.ndarray, np.ndarray]:
    """`x cos + rotate_half(x) sin` of the first `R` floats of each head, as Hugging Face's Llama defines it; its bound."""
    heads = x.astype(np.float64).reshape(len(x), x.shape[1] // head_dim, head_dim)
    rotary = cos.shape[1]
    turned, rest = heads[..., :rotary], heads[..., rotary:]
    other = np.concatenate([-turned[..., rotary // 2 :], turned[..., : rotary // 2]], -1)
    products = turned * cos[positions][:, None], other * sin[positions][:, None]
    result = np.concatenate([products[0] + products[1], rest], -1)
    bound = np.concatenate([3 * U * (np.abs(products[0]) + np.abs(products[1])), np.zeros_like(rest)], -1)
    return result.reshape(x.shape), bound.reshape(x.shape)


def laid_out(cache: np.ndarray, keys: bool) -> np.ndarray:
    """A cache `[blocks, block_size, KV, D]` as paged attention reads it, in the same shape.

    Within a block, head by head, lies a matrix of keys `[D, block_size]` or of values `[block_size, D]`; of 2-byte types, the values of two
    of its rows alternate, and an odd last row comes as it is.
    """
    return cache.reshape(-1)[_order(cache.shape, cache.itemsize == 2, keys)].reshape(cache.shape)


def read_back(stored: np.ndarray, keys: bool) -> np.ndarray:
    """The inverse of `laid_out`."""
    cache = np.empty_like(stored)
    cache.reshape(-1)[_order(stored.shape, stored.itemsize == 2, keys)] = stored.reshape(-1)
    return cache


def _order(shape: tuple[int, ...], pairs: bool, keys: bool) -> np.ndarray:
    """Which element of a cache lies at each place."""
    elements = np.arange(np.prod(shape)).reshape(shape)
    if not keys:
        return _rows_in_pairs(elements.transpose(0, 2, 1, 3), pairs).reshape(-1)
    together = [elements[:, first : first + 16].transpose(0, 2, 3, 1) for first in range(0, shape[1], 16)]
    return np.concatenate([_rows_in_pairs(keys_of_16_slots, pairs) for keys_of_16_slots in together], -1).reshape(-1)


def _rows_in_pairs(matrices: np.ndarray, pairs: bool) -> np.ndarray:
    """`[..., n, m]` as `[..., n * m]`: two rows alternate, if `pairs` says so."""
    *outer, n, m = matrices.shape
    paired = n // 2 * 2 if pairs else 0
    alternating = matrices[..., :paired, :].reshape(*outer, paired // 2, 2, m).swapaxes(-1, -2)
    rest = matrices[..., paired:, :]
    return np.concatenate([part.reshape(*outer, -1 if part.size else 0) for part in (alternating, rest)], -1)


def attention(
    query: np.ndarray,
    key_cache: np.ndarray,
    value_cache: np.ndarray,
    block_tables: np.ndarray,
    context_lens: Sequence[int],
    q_seq_lens: Sequence[int],
    scale: float,
    window: int,
    rounds: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """Causal softmax attention and its bound, both `[rows, H * D]`; with values of another size than the keys, `[rows, H * V]`.

    An error d in the scores moves a softmax-weighted mean by at most 2 d max|v|; to it the rounding of the weights and of the two
    sums over the keys is added. bfloat16 dot products round the scaled queries first, and the weights, each by 2^-8 of itself at most.
    """
    if rounds:
        query, scale = to_double(to_bfloat16(np.float32(query) * np.float32(scale))), 1.0
    block_size, kv_heads, dim = key_cache.shape[1:]
    value_dim = value_cache.shape[3]
    group = query.shape[1] // (kv_heads * dim)
    out, bound = np.zeros((2, len(query), kv_heads * group * value_dim))
    row = 0
    for table, context, new in zip(block_tables, context_lens, q_seq_lens):
        positions = np.arange(context)
        blocks, offsets = table[positions // block_size], positions % block_size
        own = positions[context - new :, None]
        hidden = (positions > own) | (positions <= own - window if window else False)
        for head in range(kv_heads * group):
            columns = slice(head * value_dim, (head + 1) * value_dim)
            q = query[row : row + new, head * dim : (head + 1) * dim].astype(np.float64)
            k = to_double(key_cache[blocks, offsets, head // group])
            v = to_double(value_cache[blocks, offsets, head // group])
            scores = np.where(hidden, -np.inf, q @ k.T * scale)
            weights = np.exp(scores - scores.max(1, keepdims=True, initial=-np.inf))
            out[row : row + new, columns] = weights @ v / weights.sum(1, keepdims=True)
            score_bound = (
                (dim + 8) * U * np.where(hidden, 0, np.abs(q) @ np.abs(k).T * scale).max(1, keepdims=True, initial=0)
            )
            largest = np.where(hidden, 0, np.abs(v).max(1)).max(1, keepdims=True, initial=0)
            bound[row : row + new, columns] = 2 * (score_bound + (context + 8) * U) * largest
            if rounds:
                bound[row : row + new, columns] += (
                    1.01 * 2.0**-8 * (weights @ np.abs(v)) / weights.sum(1, keepdims=True) + 1e-30
                )
        row += new
    return out, bound


def gating(
    logits: np.ndarray,
    bias: np.ndarray | None,
    chosen: int,
    groups: int,
    chosen_groups: int,
    group_scores: int,
    normalize: bool,
    scale: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Weights and experts of each row: sigmoids if there is a bias for the choice, else softmaxes; the lowest index among equals."""
    x = logits.astype(np.float64)
    if bias is None:
        scores = np.exp(x - x.max(1, keepdims=True))
        scores /= scores.sum(1, keepdims=True)
        choice = scores.copy()
    else:
        scores = 1 / (1 + np.exp(-x))
        choice = scores + bias
    by_group = choice.reshape(len(x), groups, x.shape[1] // groups)
    group_scores_ = np.sort(by_group, 2)[:, :, ::-1][:, :, :group_scores].sum(2)
    for row, best in zip(by_group, np.argsort(-group_scores_, 1, kind="stable")):
        row[best[chosen_groups:]] = -np.inf
    experts = np.argsort(-choice, 1, kind="stable")[:, :chosen]
    weights = np.take_along_axis(scores, experts, 1)
    if normalize:
        weights = weights / weights.sum(1, keepdims=True)
    return weights * scale, experts
