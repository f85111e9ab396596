"""Operators that treat each row by itself: embedding, norms, rotary positions, cache writes and gather."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.kernels import abi, reference
from vllm_mindspore.kernels.cpu import library

EXAMPLES = settings.get_profile("kernels")
SEEDS = st.integers(0, 2**32 - 1)
COUNTS = {"rows": st.integers(0, 20), "padding": st.integers(0, 3)}

# Ties between neighbours, subnormals of each type, the edges of float16's and bfloat16's ranges, and what is no number.
# fmt: off
AWKWARD = np.float32([
    0.0, -0.0, 1.00390625, 1.01171875, 1.00048828125, 1.00146484375, 2049, 2051, 65504, 65519.996, 65520, -65520, 3.3961e38,
    3.38953e38, 6.1e-5, 5.96e-8, 2.98e-8, 2.9802322e-8, 2.9802326e-8, -8.94e-8, 1e-38, 1e-40, 4.5e-41, 4.6e-41, 9.2e-41,
    1.4e-45, 3.4028235e38, -3.4028235e38, np.inf, -np.inf, np.nan,
])
# fmt: on


@EXAMPLES
@given(seed=SEEDS, vocabulary=st.integers(1, 80), hidden=st.integers(1, 90), **COUNTS)
def test_embedding_reads_rows_of_a_packed_weight(
    isa: str, dtype: str, seed: int, vocabulary: int, hidden: int, rows: int, padding: int
) -> None:
    """A tied embedding is the packed LM head; ids outside of the vocabulary give zeros."""
    rng = np.random.default_rng(seed)
    weight = reference.to_dtype(rng.standard_normal((vocabulary, hidden)), dtype)
    ids = rng.integers(0, vocabulary, rows + padding, dtype=np.int32)
    foreign = np.array([-1, vocabulary, vocabulary + 31, vocabulary + 1000, 2**31 - 1, -(2**31)], np.int32)
    ids = np.where(rng.random(len(ids)) < 0.2, rng.choice(foreign, len(ids)), ids).astype(np.int32)
    packed = library.pack_weight([weight], dtype, dtype)
    (result,) = abi.call("embedding", [packed, ids, abi.count(rows)], (len(ids), hidden))
    known = (ids >= 0) & (ids < vocabulary)
    expected = np.where(known[:, None], reference.to_double(weight)[np.where(known, ids, 0)], 0.0)
    assert (result[:rows] == expected[:rows]).all()
    assert (result[rows:] == abi.UNTOUCHED).all()


@EXAMPLES
@given(
    seed=SEEDS,
    group=st.integers(1, 80),
    groups=st.integers(1, 5),
    epsilon=st.sampled_from([1e-6, 1e-5, 1e-2]),
    **COUNTS,
)
def test_rms_norm_by_groups(
    isa: str, seed: int, group: int, groups: int, epsilon: float, rows: int, padding: int
) -> None:
    """One group is the norm of a layer, several are the heads of Qwen3's query and key norms."""
    rng = np.random.default_rng(seed)
    scale = rng.choice([1e-3, 1.0, 1e3], (rows + padding, 1))
    x = (rng.standard_normal((rows + padding, groups * group)) * scale).astype(np.float32)
    gamma = rng.standard_normal(group).astype(np.float32)
    (result,) = abi.call("rms_norm", [x, gamma, np.float32([epsilon]), abi.count(rows)], x.shape)
    # Squares are positive: their sum, and half of that under the root, is off by less than group * U of itself.
    expected = reference.rms_norm(x[:rows], gamma, epsilon)
    assert (np.abs(result[:rows] - expected) <= (group + 8) * reference.U * np.abs(expected)).all()
    assert (result[rows:] == abi.UNTOUCHED).all()


@EXAMPLES
@given(seed=SEEDS, width=st.integers(1, 200), **COUNTS)
def test_add_rms_norm_gives_the_sum_too(isa: str, seed: int, width: int, rows: int, padding: int) -> None:
    rng = np.random.default_rng(seed)
    x, residual = rng.standard_normal((2, rows + padding, width)).astype(np.float32)
    gamma = rng.standard_normal(width).astype(np.float32)
    y, total = abi.call("add_rms_norm", [x, residual, gamma, np.float32([1e-5]), abi.count(rows)], x.shape, x.shape)
    assert (total[:rows] == (x + residual)[:rows]).all()
    expected = reference.rms_norm((x + residual)[:rows], gamma, 1e-5)
    assert (np.abs(y[:rows] - expected) <= (width + 8) * reference.U * np.abs(expected)).all()
    assert (y[rows:] == abi.UNTOUCHED).all()
    assert (total[rows:] == abi.UNTOUCHED).all()


@EXAMPLES
@given(
    seed=SEEDS,
    half=st.integers(1, 40),
    unrotated=st.integers(0, 20),
    heads=st.integers(1, 5),
    kv_heads=st.integers(1, 3),
    positions=st.integers(1, 50),
    **COUNTS,
)
def test_rotary_positions(
    isa: str, seed: int, half: int, unrotated: int, heads: int, kv_heads: int, positions: int, rows: int, padding: int
) -> None:
    """Also of heads that are only partly rotated, and of odd sizes."""
    rng = np.random.default_rng(seed)
    dim, total = 2 * half + unrotated, rows + padding
    query = rng.standard_normal((total, heads * dim)).astype(np.float32)
    key = rng.standard_normal((total, kv_heads * dim)).astype(np.float32)
    angle = np.tile(rng.uniform(-50, 50, (positions, half)), 2)
    cos, sin = np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)
    position_ids = rng.integers(0, positions, total, dtype=np.int32)
    inputs = [query, key, cos, sin, position_ids, abi.count(dim), abi.count(rows)]
    for x, result in zip((query, key), abi.call("apply_rotary_pos_emb", inputs, query.shape, key.shape)):
        expected, bound = reference.rope(x[:rows], cos, sin, position_ids[:rows], dim)
        assert (np.abs(result[:rows] - expected) <= bound).all()
        assert (result[rows:] == abi.UNTOUCHED).all()


def test_a_position_past_the_table_reads_nothing_foreign(isa: str) -> None:
    x = np.ones((2, 4), np.float32)
    cos, sin = np.full((3, 4), 0.5, np.float32), np.zeros((3, 4), np.float32)
    positions = np.array([2**31 - 1, -(2**31)], np.int32)
    query, _ = abi.call(
        "apply_rotary_pos_emb", [x, x, cos, sin, positions, abi.count(4), abi.count(2)], x.shape, x.shape
    )
    assert (query == 0.5).all()


@pytest.mark.parametrize("name", ["reshape_and_cache", "cache_latents"])
@EXAMPLES
@given(
    seed=SEEDS,
    kv_heads=st.integers(1, 3),
    dims=st.tuples(st.integers(1, 70), st.integers(1, 70)),
    blocks=st.integers(1, 6),
    block_size=st.sampled_from([1, 2, 3, 5, 8, 16, 32]),
    padding=st.integers(0, 3),
    prompt=st.booleans(),
    data=st.data(),
)
def test_cache_write_rounds_like_numpy(
    isa: str,
    dtype: str,
    name: str,
    seed: int,
    kv_heads: int,
    dims: tuple[int, int],
    blocks: int,
    block_size: int,
    padding: int,
    prompt: bool,
    data: st.DataObject,
) -> None:
    """To nearest, ties to even, NaN, infinity and subnormals included; slot -1 and slots not named are left alone.

    Slots of a prompt's tokens lie side by side, and are written 16 together where a block's size allows it.
    """
    rng = np.random.default_rng(seed)
    if name == "reshape_and_cache":
        dims = dims[0], dims[0]
    else:
        kv_heads = 1
    slots = blocks * block_size
    rows = data.draw(st.integers(0, slots))
    total = rows + padding
    sizes = [(total, kv_heads * dim) for dim in dims]
    key, value = (
        np.where(rng.random(size) < 0.5, rng.choice(AWKWARD, size), rng.standard_normal(size)).astype(np.float32)
        for size in sizes
    )
    order = np.roll(np.arange(slots), rng.integers(slots)) if prompt else rng.permutation(slots)
    mapping = np.resize(order, total).astype(np.int32)
    mapping[rng.random(total) < (0.02 if prompt else 0.2)] = rng.choice([-1, slots, 2**31 - 1])
    shapes = [(blocks, block_size, kv_heads, dim) for dim in dims]
    before = [reference.to_dtype(rng.standard_normal(shape), dtype) for shape in shapes]
    caches = [cache.copy() for cache in before]
    abi.call(name, [key, value, *caches, mapping, abi.count(rows)], (1,))
    if name == "reshape_and_cache":
        before, caches = (
            [reference.read_back(c, keys=i == 0) for i, c in enumerate(pair)] for pair in (before, caches)
        )
    for x, old, new in zip((key, value), before, caches):
        expected = old.reshape(slots, x.shape[1])
        for row in range(rows):
            if 0 <= mapping[row] < slots:
                expected[mapping[row]] = reference.to_dtype(x[row], dtype)
        assert reference.same_values(expected.reshape(new.shape), new)


@pytest.mark.parametrize("odd", range(16))
def test_one_of_sixteen_tokens_may_go_to_another_block(isa: str, dtype: str, odd: int) -> None:
    """As where a prompt of fifteen tokens is followed by another sequence's first: those are not written together."""
    x = np.random.default_rng(odd).standard_normal((16, 2 * 8)).astype(np.float32)
    mapping = np.arange(16, dtype=np.int32)
    mapping[odd] = 16 + 3
    caches = [reference.to_dtype(np.zeros((2, 16, 2, 8)), dtype) for _ in range(2)]
    abi.call("reshape_and_cache", [x, x, *caches, mapping, abi.count(16)], (1,))
    expected = reference.to_dtype(np.zeros((32, 16)), dtype)
    expected[mapping] = reference.to_dtype(x, dtype)
    for i, cache in enumerate(caches):
        found = reference.read_back(cache, keys=i == 0)
        assert reference.same_values(expected.reshape(found.shape), found)


def test_cache_write_rounds_every_kind_of_float(isa: str, dtype: str) -> None:
    """A grid over all exponents and signs, with mantissas around the ties of both 2-byte types."""
    low = np.array(
        [0, 1, 0xFFF, 0x1000, 0x1001, 0x1FFF, 0x2000, 0x3000, 0x7FFF, 0x8000, 0x8001, 0x18000, 0x7FFFFF], np.uint32
    )
    x = (np.arange(512, dtype=np.uint32)[:, None] << 23 | low).view(np.float32)
    caches = [np.zeros((512, 1, 1, len(low)), library.storage(dtype)) for _ in range(2)]
    abi.call("reshape_and_cache", [x, x, *caches, np.arange(512, dtype=np.int32), abi.count(512)], (1,))
    assert reference.same_values(reference.to_dtype(x, dtype), caches[0].reshape(512, -1))
    assert reference.same_values(caches[0], caches[1])


@EXAMPLES
@given(
    seed=SEEDS, tokens=st.integers(1, 30), width=st.integers(1, 50), rows=st.integers(0, 20), padding=st.integers(0, 3)
)
def test_gather_copies_rows(isa: str, seed: int, tokens: int, width: int, rows: int, padding: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((tokens, width)).astype(np.float32)
    indices = rng.integers(0, tokens, rows + padding, dtype=np.int32)
    (result,) = abi.call("gather", [x, indices, abi.count(rows)], (rows + padding, width))
    assert (result[:rows] == x[indices[:rows]]).all()
    assert (result[rows:] == abi.UNTOUCHED).all()


@pytest.mark.parametrize("rows", [3, 2000])
def test_every_number_of_threads_computes_the_same_bits(isa: str, rows: int) -> None:
    rng = np.random.default_rng(1)
    x, gamma = rng.standard_normal((rows, 96)).astype(np.float32), rng.standard_normal(96).astype(np.float32)
    inputs = [x, x, gamma, np.float32([1e-5]), abi.count(rows)]
    results = []
    for number in 1, 2, 3, 5:
        with abi.threads(number):
            results.append(b"".join(r.tobytes() for r in abi.call("add_rms_norm", inputs, x.shape, x.shape)))
    assert len(set(results)) == 1


@pytest.mark.parametrize("given_count", [-1, 4, 2**31 - 1])
def test_a_wrong_count_stays_within_the_tensor(isa: str, given_count: int) -> None:
    x = np.ones((3, 8), np.float32)
    (result,) = abi.call("rms_norm", [x, x[0], np.float32([0]), abi.count(given_count)], x.shape)
    assert (result == (abi.UNTOUCHED if given_count < 0 else 1.0)).all()
