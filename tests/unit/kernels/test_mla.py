"""Latent attention against a plain softmax, and the same bits however a prompt is cut and whatever runs beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.kernels import abi, reference
from tests.unit.kernels.test_matmul import draw_rows, draw_weight, rounds_activations
from tests.unit.kernels.test_moe import stack

EXAMPLES = settings(settings.get_profile("kernels"), max_examples=25)
SEEDS = st.integers(0, 2**32 - 1)


@dataclass
class Sequences:
    """Caches with the latents and rotated keys of some sequences in blocks at random places, and their queries at all positions."""

    query: list[np.ndarray]  # of each sequence, [context, H, rank + rope]
    latents: np.ndarray
    turned: np.ndarray
    block_tables: np.ndarray

    @property
    def scale(self) -> float:
        return float(np.float32((self.latents.shape[3] + self.turned.shape[3]) ** -0.5))

    def run(
        self, ends: Sequence[int], new: Sequence[int], which: Sequence[int] | None = None, padding: int = 0
    ) -> np.ndarray:
        """Attention of the last `new[i]` of the first `ends[i]` positions of sequence `which[i]`, in one step."""
        which = range(len(ends)) if which is None else which
        rows = [self.query[s][end - n : end] for s, end, n in zip(which, ends, new)]
        rows.append(np.full((padding, *self.query[0].shape[1:]), np.nan, np.float32))
        query, rank = np.concatenate(rows), self.latents.shape[3]
        parts = [flat(part) for part in (query[..., :rank], query[..., rank:])]
        # Sequences past the true count hold what would crash a kernel that read them.
        lens = [np.array([*values, 2**30], np.int32) for values in (ends, new)]
        tables = np.vstack([self.block_tables[list(which)], np.full((1, self.block_tables.shape[1]), 2**30)])
        inputs = [*parts, self.latents, self.turned, tables.astype(np.int32), *lens]
        inputs += [np.float32([self.scale]), abi.count(len(ends))]
        (result,) = abi.call("mla", inputs, parts[0].shape)
        assert (result[sum(new) :] == abi.UNTOUCHED).all()
        return result[: sum(new)]

    def assert_right(self, ends: Sequence[int], new: Sequence[int], padding: int = 0) -> None:
        result = self.run(ends, new, padding=padding)
        query = np.concatenate([q[end - n : end] for q, end, n in zip(self.query, ends, new)])
        keys = np.concatenate([self.latents, self.turned], 3)
        exact, bound = reference.attention(
            flat(query), keys, self.latents, self.block_tables, ends, new, self.scale, 0, rounds=False
        )
        reference.assert_within(result, exact, bound)


def flat(query: np.ndarray) -> np.ndarray:
    """The heads of a row side by side."""
    return np.ascontiguousarray(query).reshape(len(query), query.shape[1] * query.shape[2])


def draw_sequences(
    rng: np.random.Generator,
    dtype: str,
    contexts: Sequence[int],
    heads: int = 3,
    rank: int = 20,
    rope: int = 8,
    block_size: int = 16,
) -> Sequences:
    needed = [-(-context // block_size) for context in contexts]
    blocks = rng.permutation(sum(needed) + 3)
    tables = np.full((len(contexts), max(1, *needed) + 1), -1, np.int32)  # entries that are not needed are not read
    used = np.zeros((sum(needed) + 3, block_size), bool)
    for s, (n, context) in enumerate(zip(needed, contexts)):
        tables[s, :n], blocks = blocks[:n], blocks[n:]
        positions = np.arange(context)
        used[tables[s, positions // block_size], positions % block_size] = True
    # Keys vary in size so that the running maximum moves and some weights vanish; blocks hold anything past a sequence's end.
    size = np.where(used, rng.choice([0.1, 1.0, 4.0], used.shape), np.nan)[..., None, None]
    caches = [reference.to_dtype(rng.standard_normal((*used.shape, 1, width)) * size, dtype) for width in (rank, rope)]
    query = [rng.standard_normal((context, heads, rank + rope)).astype(np.float32) for context in contexts]
    return Sequences(query, *caches, tables)


@EXAMPLES
@given(seed=SEEDS, data=st.data())
def test_any_mixture_of_prefill_chunks_and_decode(isa: str, dtype: str, seed: int, data: st.DataObject) -> None:
    contexts = data.draw(st.lists(st.integers(1, 90), min_size=1, max_size=5))
    new = [data.draw(st.sampled_from([0, 1, context, max(1, context // 2)])) for context in contexts]
    sequences = draw_sequences(
        np.random.default_rng(seed),
        dtype,
        contexts,
        heads=data.draw(st.sampled_from([1, 2, 5, 16, 17, 40])),
        rank=data.draw(st.sampled_from([1, 16, 20, 31, 64, 100])),
        rope=data.draw(st.sampled_from([2, 8, 10, 16, 34])),
        block_size=data.draw(st.integers(1, 32)),
    )
    sequences.assert_right(contexts, new, padding=data.draw(st.integers(0, 3)))


@pytest.mark.parametrize("new", [1, 5, 60])
def test_long_contexts(isa: str, dtype: str, new: int) -> None:
    """Past 512 and 1024 keys partial sums are merged; contexts on both sides of each boundary; more heads than an item takes."""
    contexts = [511, 512, 513, 1023, 1024, 1025, 1700]
    sequences = draw_sequences(np.random.default_rng(new), dtype, contexts, heads=18)
    sequences.assert_right(contexts, [new if context in (513, 1700) else 1 for context in contexts])


def test_the_sizes_of_deepseek(isa: str, dtype: str) -> None:
    sequences = draw_sequences(np.random.default_rng(5), dtype, [530, 40], heads=32, rank=512, rope=64)
    sequences.assert_right([530, 40], [1, 3])


def test_a_row_has_the_same_bits_however_its_prompt_is_cut(isa: str, dtype: str) -> None:
    """One step, chunks of several sizes, and token by token: so a cached prefix or a preemption changes no answer."""
    length = 1100
    sequences = draw_sequences(np.random.default_rng(6), dtype, [length])
    whole = sequences.run([length], [length])
    for chunk in 1, 7, 16, 17, 512, 600:
        ends = [min(length, start + chunk) for start in range(0, length, chunk)]
        pieces = [sequences.run([end], [end - start]) for start, end in zip([0, *ends], ends)]
        assert np.concatenate(pieces).tobytes() == whole.tobytes(), f"in chunks of {chunk}"


def test_a_sequence_has_the_same_bits_beside_others_and_on_every_number_of_threads(isa: str, dtype: str) -> None:
    contexts, new = [3, 700, 1, 530, 64, 90], [3, 1, 1, 2, 30, 90]
    sequences = draw_sequences(np.random.default_rng(7), dtype, contexts, heads=20)
    alone = [sequences.run([end], [n], which=[s]) for s, (end, n) in enumerate(zip(contexts, new))]
    order = [4, 0, 5, 3, 1, 2]
    for number in 1, 2, 3, 5:
        with abi.threads(number):
            shuffled = sequences.run([contexts[s] for s in order], [new[s] for s in order], which=order)
        assert shuffled.tobytes() == np.concatenate([alone[s] for s in order]).tobytes()


@EXAMPLES
@given(
    seed=SEEDS,
    heads=st.integers(1, 6),
    n=st.integers(1, 70),
    k=st.integers(1, 50),
    rows=st.integers(0, 30),
    padding=st.integers(0, 3),
)
def test_each_head_has_a_matrix_of_its_own(
    isa: str, dtype: str, seed: int, heads: int, n: int, k: int, rows: int, padding: int
) -> None:
    rng = np.random.default_rng(seed)
    weights = [draw_weight(rng, n, k, dtype) for _ in range(heads)]
    x = draw_rows(rng, rows + padding, heads * k)
    inputs = [x, stack([[w] for w in weights], dtype), abi.count(rows)]
    (result,) = abi.call("transpose_batch_matmul_transpose", inputs, (rows + padding, heads * n))
    for head, weight in enumerate(weights):
        own = np.ascontiguousarray(x[:rows, head * k : (head + 1) * k])
        exact, bound = reference.matmul(own, weight, rounds_activations(isa, dtype))
        reference.assert_within(result[:rows, head * n : (head + 1) * n], exact, bound)
    assert (result[rows:] == abi.UNTOUCHED).all()
