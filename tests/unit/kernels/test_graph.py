"""The operators where they are used: in a static MindSpore graph, whose every result is compared with numpy's."""

from __future__ import annotations

import gc
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from tests.unit.kernels import reference
from vllm_mindspore.bootstrap import import_mindspore
from vllm_mindspore.kernels.cpu import library

BLOCKS, BLOCK_SIZE, ROTARY, POSITIONS = 7, 4, 8, 32


@pytest.fixture(scope="module")
def graphs() -> ModuleType:
    import_mindspore()
    from tests.unit.kernels import graphs

    graphs.ms.set_context(mode=graphs.ms.GRAPH_MODE, device_target="CPU")
    return graphs


def draw_weights(graphs: ModuleType, dtype: str) -> tuple[dict[str, np.ndarray], dict[str, list[np.ndarray]]]:
    """Vectors and, in the storage of `dtype`, the parts of each matrix."""
    rng = np.random.default_rng(0)
    angles = np.tile(rng.uniform(-3, 3, (POSITIONS, ROTARY // 2)), 2)
    sizes = {"gamma": graphs.HIDDEN, "head_gamma": graphs.HEAD_DIM, "qkv_bias": sum(graphs.WIDTHS)}
    sizes.update(gate_up_bias=2 * graphs.MIDDLE, down_bias=graphs.HIDDEN)
    vectors = {name: rng.standard_normal(size).astype(np.float32) for name, size in sizes.items()}
    vectors.update(cos=np.cos(angles).astype(np.float32), sin=np.sin(angles).astype(np.float32))

    def matrix(n: int, k: int) -> np.ndarray:
        return reference.to_dtype(rng.standard_normal((n, k)) / np.sqrt(k), dtype)

    hidden, middle = graphs.HIDDEN, graphs.MIDDLE
    parts = {"vocabulary": [matrix(graphs.VOCABULARY, hidden)], "qkv": [matrix(n, hidden) for n in graphs.WIDTHS]}
    parts["output"] = [matrix(hidden, graphs.WIDTHS[0])]
    parts["gate_up"] = [matrix(middle, hidden), matrix(middle, hidden)]
    parts["down"] = [matrix(hidden, middle)]
    return vectors, parts


def padded(values: list[int], size: int, filler: int) -> np.ndarray:
    return np.array(values + [filler] * (size - len(values)), np.int32)


TABLES = np.array([[5, 2, 0], [3, 6, 0], [-1, -1, -1]], np.int32)
PROMPTS = {"ids": [3, 69, 70, 0, 12, 3, 41], "contexts": [5, 2], "new": [5, 2]}  # 70 is no token
ANSWERS = {"ids": [8, 9], "contexts": [6, 3], "new": [1, 1]}


def assert_within(name: str, result: np.ndarray, exact: np.ndarray, bound: np.ndarray | float) -> None:
    error = np.abs(result - exact)
    assert (error <= bound).all(), f"{name} is off by {error.max()}"


def test_every_operator_of_a_graph(graphs: ModuleType, dtype: str) -> None:
    """Two steps of two sequences in one compiled graph: prompts, then one token each, reading the cache that the first wrote."""
    from vllm_mindspore.kernels import ops

    vectors, parts = draw_weights(graphs, dtype)
    packed = {name: ops.pack_weight(p, dtype, dtype, interleave=name == "gate_up") for name, p in parts.items()}
    shape = BLOCKS, BLOCK_SIZE, graphs.KV_HEADS, graphs.HEAD_DIM
    caches = [ops.cache_tensor(ops.cache_array(*shape, dtype), dtype) for _ in range(2)]
    net = graphs.EveryOp(vectors, packed, caches)
    expected_caches = [np.zeros(caches[0].shape, library.storage(dtype)) for _ in range(2)]
    for step in PROMPTS, ANSWERS:
        ids, contexts, new = step["ids"], step["contexts"], step["new"]
        positions = [p for context, n in zip(contexts, new) for p in range(context - n, context)]
        sequence = [s for s, n in enumerate(new) for _ in range(n)]
        slots = [int(TABLES[s, p // BLOCK_SIZE] * BLOCK_SIZE + p % BLOCK_SIZE) for s, p in zip(sequence, positions)]
        lasts = [int(row) for row in np.cumsum(new) - 1]
        inputs = [padded(ids, 8, 1), padded(positions, 8, 0), padded(slots, 8, 0), TABLES, padded(contexts, 3, 9)]
        inputs += [padded(new, 3, 9), padded(lasts, 4, 0)]
        inputs += [np.array([n], np.int32) for n in (len(ids), len(new), len(lasts))]
        outputs = [tensor.asnumpy() for tensor in net(*(graphs.Tensor(array) for array in inputs))]
        got = SimpleNamespace(
            **{
                name: output[: len(lasts) if name in ("last", "logits", "greedy") else len(ids)]
                for name, output in zip(graphs.NAMES, outputs)
            }
        )
        write_caches(expected_caches, got, slots)
        for tensor, expected, keys in zip(caches, expected_caches, (True, False)):
            # bfloat16 has no numpy type: its values reach numpy as float32, exactly.
            held = tensor.float().asnumpy() if dtype == "bfloat16" else tensor.asnumpy()
            assert (held == reference.to_double(reference.laid_out(expected, keys))).all()
        check(graphs, got, vectors, parts, expected_caches, ids, positions, contexts, new, lasts)


def write_caches(caches: list[np.ndarray], got: SimpleNamespace, slots: list[int]) -> None:
    for cache, x in zip(caches, (got.key_turned, got.value)):
        stored = reference.to_dtype(x, "bfloat16" if cache.dtype == np.uint16 else str(cache.dtype))
        cache.reshape(BLOCKS * BLOCK_SIZE, -1)[slots] = stored


def check(
    graphs: ModuleType,
    got: SimpleNamespace,
    vectors: dict[str, np.ndarray],
    parts: dict[str, list[np.ndarray]],
    caches: list[np.ndarray],
    ids: list[int],
    positions: list[int],
    contexts: list[int],
    new: list[int],
    lasts: list[int],
) -> None:
    """Each result against the reference, from what the graph itself gave the operator."""
    rounds = library.isa() in reference.ROUNDING_ISAS and caches[0].dtype == np.uint16
    u, dim, epsilon = reference.U, graphs.HEAD_DIM, graphs.EPSILON

    vocabulary = np.vstack([reference.to_double(parts["vocabulary"][0]), np.zeros(graphs.HIDDEN)])
    assert (got.embedded == vocabulary[ids]).all()
    for name, x, gamma in ("normed", got.embedded, "gamma"), ("query_normed", got.query, "head_gamma"):
        exact = reference.rms_norm(x, vectors[gamma], epsilon)
        assert_within(name, getattr(got, name), exact, (graphs.HIDDEN + 8) * u * np.abs(exact))
    assert (got.residual == got.projected + got.embedded).all()
    exact = reference.rms_norm(got.residual, vectors["gamma"], epsilon)
    assert_within("second_normed", got.second_normed, exact, (graphs.HIDDEN + 8) * u * np.abs(exact))

    starts = np.cumsum((0, *graphs.WIDTHS))
    biases = [vectors["qkv_bias"][a:b] for a, b in zip(starts, starts[1:])]
    products = [(n, got.normed, w, b) for n, w, b in zip(("query", "key", "value"), parts["qkv"], biases)]
    products += [("projected", got.attended, parts["output"][0], 0.0)]
    products += [("down", got.gated, parts["down"][0], vectors["down_bias"])]
    products += [("logits", got.last, parts["vocabulary"][0], 0.0)]
    for name, x, weight, bias in products:
        exact, bound = reference.matmul(x, weight, rounds)
        assert_within(name, getattr(got, name), exact + bias, bound + u * (np.abs(exact + bias) + bound))

    halves = [reference.matmul(got.second_normed, weight, rounds) for weight in parts["gate_up"]]
    assert_within("gated", got.gated, *reference.swiglu(*halves[0], *halves[1]))
    biases = np.split(vectors["gate_up_bias"], 2)
    halves = [
        (exact + bias, bound + u * (np.abs(exact + bias) + bound)) for (exact, bound), bias in zip(halves, biases)
    ]
    assert_within("gated_biased", got.gated_biased, *reference.swiglu(*halves[0], *halves[1]))

    for name, x in ("query_turned", got.query_normed), ("key_turned", got.key):
        tables = vectors["cos"], vectors["sin"]
        assert_within(name, getattr(got, name), *reference.rope(x, *tables, np.array(positions), dim))
    scale = float(np.float32(graphs.SCALE))
    attended = reference.attention(got.query_turned, *caches, TABLES, contexts, new, scale, graphs.WINDOW, rounds)
    assert_within("attended", got.attended, *attended)
    assert (got.last == got.down[lasts]).all()
    assert (got.greedy == got.logits.argmax(-1)).all()


def test_parameter_shares_memory_and_keeps_it_alive(graphs: ModuleType) -> None:
    """A copy would double the memory of the weights; a dangling one would read freed memory."""
    from vllm_mindspore.kernels import ops

    tensor = graphs.Tensor.from_numpy(np.arange(1 << 20, dtype=np.float32))
    address = tensor.data_ptr()
    parameter = ops.parameter(tensor, "weight")
    net = graphs.Holder(parameter)
    del tensor
    gc.collect()
    others = [np.full(1 << 20, -1, np.float32) for _ in range(8)]  # would take the freed memory
    result = net(graphs.Tensor(np.ones(1, np.float32))).asnumpy()
    assert parameter.data_ptr() == address
    assert (result == np.arange(1, (1 << 20) + 1)).all()
    assert len(others) == 8


def test_packed_weight_becomes_a_tensor_of_the_model_dtype(graphs: ModuleType, dtype: str) -> None:
    from vllm_mindspore.kernels import ops

    weight = np.random.default_rng(0).standard_normal((33, 5)).astype(np.float32)
    tensor = ops.pack_weight([weight], dtype, "float32")
    assert str(tensor.dtype).lower() == dtype
    assert tensor.shape == library.packed_shape(33, 5, dtype)


@pytest.mark.parametrize("widths", [[], [1] * 5])
def test_a_product_of_too_many_outputs_is_refused(graphs: ModuleType, widths: list[int]) -> None:
    from vllm_mindspore.kernels import ops

    with pytest.raises(ValueError, match="1 to 4"):
        ops.MatMul(widths)


def test_heads_that_do_not_share_kv_heads_evenly_are_refused(graphs: ModuleType) -> None:
    from vllm_mindspore.kernels import ops

    with pytest.raises(ValueError, match="head_num 5 is not a multiple of kv_head_num 2"):
        ops.PagedAttention(5, 1.0, 2)
