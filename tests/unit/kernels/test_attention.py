"""Paged attention against a plain softmax, and the same bits however a prompt is cut and whatever runs beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.kernels import abi, reference
from vllm_mindspore.kernels.cpu import library

EXAMPLES = settings(settings.get_profile("kernels"), max_examples=25)
SEEDS = st.integers(0, 2**32 - 1)
HEAD_DIMS = [8, 16, 20, 31, 32, 40, 64, 72, 80, 96, 100, 128, 256]


@dataclass
class Sequences:
    """A cache with the keys and values of some sequences in blocks at random places, and their queries at all positions."""

    query: list[np.ndarray]  # of each sequence, [context, H * D]
    key_cache: np.ndarray
    value_cache: np.ndarray
    block_tables: np.ndarray
    window: int

    @property
    def scale(self) -> float:
        return float(np.float32(self.key_cache.shape[3] ** -0.5))

    def run(
        self, ends: Sequence[int], new: Sequence[int], which: Sequence[int] | None = None, padding: int = 0
    ) -> np.ndarray:
        """Attention of the last `new[i]` of the first `ends[i]` positions of sequence `which[i]`, in one step."""
        which = range(len(ends)) if which is None else which
        rows = [self.query[s][end - n : end] for s, end, n in zip(which, ends, new)]
        rows.append(np.full((padding, self.query[0].shape[1]), np.nan, np.float32))
        query = np.concatenate(rows)
        # Sequences past the true count hold what would crash a kernel that read them.
        lens = [np.array([*values, 2**30], np.int32) for values in (ends, new)]
        tables = np.vstack([self.block_tables[list(which)], np.full((1, self.block_tables.shape[1]), 2**30)])
        caches = [reference.laid_out(self.key_cache, keys=True), reference.laid_out(self.value_cache, keys=False)]
        inputs = [query, *caches, tables.astype(np.int32), *lens]
        inputs += [np.float32([self.scale]), abi.count(self.window), abi.count(len(ends))]
        (result,) = abi.call("paged_attention", inputs, query.shape)
        assert (result[sum(new) :] == abi.UNTOUCHED).all()
        return result[: sum(new)]

    def assert_right(self, ends: Sequence[int], new: Sequence[int], padding: int = 0) -> None:
        result = self.run(ends, new, padding=padding)
        query = np.concatenate([q[end - n : end] for q, end, n in zip(self.query, ends, new)])
        exact, bound = reference.attention(
            query, self.key_cache, self.value_cache, self.block_tables, ends, new, self.scale, self.window,
            rounds=library.isa() in reference.ROUNDING_ISAS and self.key_cache.dtype == np.uint16,
        )  # fmt: skip
        error = np.abs(result - exact)
        assert (error <= bound).all(), (
            f"off by {error.max()}, {(error / np.maximum(bound, 1e-30)).max():.2f} times the bound"
        )


def draw_sequences(
    rng: np.random.Generator,
    dtype: str,
    contexts: Sequence[int],
    kv_heads: int = 2,
    group: int = 3,
    dim: int = 16,
    block_size: int = 16,
    window: int = 0,
) -> Sequences:
    needed = [-(-context // block_size) for context in contexts]
    blocks = rng.permutation(sum(needed) + 3)
    tables = np.full((len(contexts), max(1, *needed) + 1), -1, np.int32)  # entries that are not needed are not read
    for s, n in enumerate(needed):
        tables[s, :n], blocks = blocks[:n], blocks[n:]
    shape = (sum(needed) + 3, block_size, kv_heads, dim)
    # Keys vary in size so that the running maximum moves and some weights vanish.
    keys = rng.standard_normal(shape) * rng.choice([0.1, 1.0, 4.0], shape[:2])[..., None, None]
    query = [rng.standard_normal((context, kv_heads * group * dim)).astype(np.float32) for context in contexts]
    values = rng.standard_normal(shape)
    # What a block holds past its sequence's end is left from others, and may be anything.
    used = np.zeros(shape[:2], bool)
    for table, context in zip(tables, contexts):
        positions = np.arange(context)
        used[table[positions // block_size], positions % block_size] = True
    keys[~used] = values[~used] = np.nan
    caches = reference.to_dtype(keys, dtype), reference.to_dtype(values, dtype)
    return Sequences(query, *caches, tables, window)


@EXAMPLES
@given(seed=SEEDS, data=st.data())
def test_any_mixture_of_prefill_chunks_and_decode(isa: str, dtype: str, seed: int, data: st.DataObject) -> None:
    rng = np.random.default_rng(seed)
    contexts = data.draw(st.lists(st.integers(1, 90), min_size=1, max_size=5))
    new = [data.draw(st.sampled_from([0, 1, context, max(1, context // 2)])) for context in contexts]
    sequences = draw_sequences(
        rng,
        dtype,
        contexts,
        kv_heads=data.draw(st.integers(1, 3)),
        group=data.draw(st.integers(1, 8)),
        dim=data.draw(st.sampled_from(HEAD_DIMS)),
        block_size=data.draw(st.one_of(st.sampled_from([16, 32, 64, 128]), st.integers(1, 32))),
        window=data.draw(st.sampled_from([0, 0, 1, 2, 17, 64, 200])),
    )
    sequences.assert_right(contexts, new, padding=data.draw(st.integers(0, 3)))


@pytest.mark.parametrize("window", [0, 1, 300, 700, 5000])
@pytest.mark.parametrize("new", [1, 5, 60])
def test_long_contexts(isa: str, dtype: str, window: int, new: int) -> None:
    """Past 512 and 1024 keys partial sums are merged; contexts on both sides of each boundary."""
    contexts = [511, 512, 513, 1023, 1024, 1025, 1700]
    sequences = draw_sequences(np.random.default_rng(window + new), dtype, contexts, kv_heads=1, group=2, window=window)
    sequences.assert_right(contexts, [new if context in (513, 1700) else 1 for context in contexts])


@pytest.mark.parametrize("window", [0, 300])
def test_a_row_has_the_same_bits_however_its_prompt_is_cut(isa: str, dtype: str, window: int) -> None:
    """One step, chunks of several sizes, and token by token: so a cached prefix or a preemption changes no answer."""
    length = 1100
    sequences = draw_sequences(
        np.random.default_rng(window), dtype, [length], kv_heads=1, group=2, dim=20, window=window
    )
    whole = sequences.run([length], [length])
    for chunk in 1, 7, 24, 25, 512, 600:
        ends = [min(length, start + chunk) for start in range(0, length, chunk)]
        pieces = [sequences.run([end], [end - start]) for start, end in zip([0, *ends], ends)]
        assert np.concatenate(pieces).tobytes() == whole.tobytes(), f"in chunks of {chunk}"


def test_a_sequence_has_the_same_bits_beside_others(isa: str, dtype: str) -> None:
    # Alone, each of its KV heads is an item by itself; so many have their heads together, where they have few rows.
    contexts, new = [3, 700, 1, 530, 64, 90, 65, 127, 1025, 33], [3, 1, 1, 2, 30, 90, 1, 1, 1, 5]
    sequences = draw_sequences(np.random.default_rng(7), dtype, contexts)
    together = sequences.run(contexts, new)
    alone = [sequences.run([end], [n], which=[s]) for s, (end, n) in enumerate(zip(contexts, new))]
    assert together.tobytes() == np.concatenate(alone).tobytes()
    order = [4, 9, 0, 5, 3, 8, 1, 7, 2, 6]
    shuffled = sequences.run([contexts[s] for s in order], [new[s] for s in order], which=order)
    assert shuffled.tobytes() == np.concatenate([alone[s] for s in order]).tobytes()


@pytest.mark.parametrize("kv_heads", [2, 8])
def test_many_sequences_that_have_several_heads_to_an_item_are_right(isa: str, dtype: str, kv_heads: int) -> None:
    """An item with all heads of a sequence needs scratch for each of them, which must not end before the last."""
    contexts, new = [40] * 20, [16] * 20
    sequences = draw_sequences(np.random.default_rng(7), dtype, contexts, kv_heads=kv_heads, group=1, dim=64)
    sequences.assert_right(contexts, new)


def test_every_number_of_threads_computes_the_same_bits(isa: str, dtype: str) -> None:
    contexts, new = [1300, 70, 600], [1, 70, 100]
    sequences = draw_sequences(np.random.default_rng(8), dtype, contexts)
    results = []
    for number in 1, 2, 3, 5:
        with abi.threads(number):
            results.append(sequences.run(contexts, new).tobytes())
    assert len(set(results)) == 1


@pytest.mark.parametrize(("context", "new"), [(2**31 - 1, 1), (48, 2**31 - 1), (2, 5)])
def test_wrong_lengths_stay_within_the_tensors(isa: str, dtype: str, context: int, new: int) -> None:
    """A context ends with its block table, new tokens with the query, and no context is shorter than what is new."""
    sequences = draw_sequences(np.random.default_rng(4), dtype, [48])
    sequences.block_tables = np.ascontiguousarray(sequences.block_tables[:, :3])
    rows = min(new, 5)
    right = sequences.run([min(max(context, rows), 48)], [rows])
    caches = [reference.laid_out(sequences.key_cache, keys=True), reference.laid_out(sequences.value_cache, keys=False)]
    query = sequences.query[0][min(max(context, rows), 48) - rows :][:rows]
    inputs = [query, *caches, sequences.block_tables, np.array([context], np.int32), np.array([new], np.int32)]
    inputs += [np.float32([sequences.scale]), abi.count(0), abi.count(1)]
    (found,) = abi.call("paged_attention", inputs, query.shape)
    assert np.array_equal(found, right)


def test_scores_of_any_size_stay_finite(isa: str, dtype: str) -> None:
    """Softmax subtracts the maximum: e^1000 would overflow, e^-1000 of every key would divide by 0."""
    sequences = draw_sequences(np.random.default_rng(9), dtype, [600, 40])
    for sign in 1, -1:
        sequences.query = [np.full_like(q, sign * 300.0) for q in sequences.query]
        result = sequences.run([600, 40], [1, 40])
        assert np.isfinite(result).all()
        assert np.abs(result).max() <= np.nanmax(np.abs(reference.to_double(sequences.value_cache))) * (1 + 1e-5)
