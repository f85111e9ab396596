"""What a scheduler may do to a step and to blocks of the cache changes no bit of the result."""

from __future__ import annotations

import gc
import logging
import sys
import threading
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
import psutil
import pytest

from tests.checkpoints import make_checkpoint
from tests.unit.models.driver import Driver
from vllm_mindspore.engine.step import StepBatch
from vllm_mindspore.kernels import ops
from vllm_mindspore.kernels.cpu import library

PROMPT = [(7 * i) % 97 for i in range(1000)]
PROMPTS = {0: list(range(5, 33)), 2: list(range(40, 41)), 3: [7, 9, 11] * 9}


KINDS = [("LlamaForCausalLM", "float32"), ("LlamaForCausalLM", "bfloat16"), ("DeepseekV3ForCausalLM", "bfloat16")]
"""Caches of keys and values, and of latents."""


@pytest.fixture(scope="module", params=KINDS, ids="-".join)
def kind(request: pytest.FixtureRequest) -> tuple[str, str]:
    pair: tuple[str, str] = request.param
    return pair


@pytest.fixture(scope="module")
def dtype(kind: tuple[str, str]) -> str:
    return kind[1]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, kind: tuple[str, str]) -> tuple[Path, Any]:
    folder = tmp_path_factory.mktemp("checkpoint")
    return folder, make_checkpoint(folder, *kind).config


@pytest.mark.parametrize("max_num_tokens", [5, 16, 28, 55])
def test_a_step_that_is_too_large_is_run_in_pieces(
    checkpoint: tuple[Path, Any], dtype: str, max_num_tokens: int
) -> None:
    whole, pieces = Driver(*checkpoint, dtype), Driver(*checkpoint, dtype, max_num_tokens=max_num_tokens)
    for step in PROMPTS, {3: [1], 0: list(range(20))}:
        for expected, found in zip(whole.step(step), pieces.step(step)):
            assert np.array_equal(expected, found)


def test_blocks_that_were_swapped_out_and_in_again_hold_what_they_held(
    checkpoint: tuple[Path, Any], dtype: str
) -> None:
    kept, swapped = Driver(*checkpoint, dtype), Driver(*checkpoint, dtype, num_host_blocks=9)
    for driver in kept, swapped:
        driver.step(PROMPTS)
    blocks, spare = swapped.tables[0][:4], swapped.tables[1][:4]
    pool = [8, 0, 3, 5]
    cache = swapped.runner.kv_cache
    cache.swap_out(list(zip(blocks, pool)))
    swapped.step({1: list(range(30))})  # while sequence 0 is away, its blocks are written by another
    cache.copy([(spare[0], blocks[0]), (spare[1], blocks[1])])
    cache.swap_in(list(zip(pool, blocks)))
    for expected, found in zip(kept.step({0: [50, 51]}), swapped.step({0: [50, 51]})):
        assert np.array_equal(expected, found)


def test_copied_blocks_hold_the_same(checkpoint: tuple[Path, Any], dtype: str) -> None:
    driver = Driver(*checkpoint, dtype)
    driver.step(PROMPTS)
    driver.runner.kv_cache.copy(list(zip(driver.tables[0][:4], driver.tables[1][:4])))
    driver.lengths[1] = driver.lengths[0]
    logits, _ = driver.step({0: [50], 1: [50]})
    assert np.array_equal(logits[0], logits[1])


def test_a_sequence_may_end_in_a_block_that_is_not_whole(checkpoint: tuple[Path, Any], dtype: str) -> None:
    """A context that a user chooses is no multiple of a block."""
    whole, cut = (Driver(*checkpoint, dtype, max_len=length) for length in (64, 59))
    for expected, found in zip(whole.step({0: PROMPT[:59]}), cut.step({0: PROMPT[:59]})):
        assert np.array_equal(expected, found)


@pytest.mark.parametrize("capture_launches", [False, True])
def test_a_step_runs_a_compiled_graph_and_none_of_the_networks_python(
    checkpoint: tuple[Path, Any], dtype: str, capture_launches: bool
) -> None:
    """Operator by operator, which is MindSpore's default, a step takes ten times as long; MindSpore's runtime twice as long as the launches."""
    driver = Driver(*checkpoint, dtype, capture_launches=capture_launches)
    files = set()
    tables = driver.tables[:1]
    one = np.ones(1, np.int32)
    batch = StepBatch(one, one - 1, one - 2, tables, one, one, one - 1)
    sys.setprofile(lambda frame, event, argument: files.add(Path(frame.f_code.co_filename).name))
    try:
        driver.runner.execute(batch)
    finally:
        sys.setprofile(None)
    assert "runner.py" in files
    assert not files & {"decoder.py", "mla.py", "experts.py", "ops.py"}
    assert capture_launches == ("cell.py" not in files)


@pytest.mark.parametrize("weight_dtype", [None, "int8"])
def test_captured_launches_give_the_same_bits(
    checkpoint: tuple[Path, Any], dtype: str, weight_dtype: str | None
) -> None:
    by_mindspore, captured = (
        Driver(*checkpoint, dtype, capture_launches=on, weight_dtype=weight_dtype) for on in (False, True)
    )
    assert captured.runner._buckets[0]._capture is not None
    for step in PROMPTS, {3: [1], 0: list(range(20))}, {0: [4], 1: [5, 6], 2: [7], 3: [8]}, {2: [9]}:
        for expected, found in zip(by_mindspore.step(step), captured.step(step)):
            assert np.array_equal(expected, found)


@pytest.mark.parametrize("vocab", [97, 3000, 30000])
@pytest.mark.parametrize("max_len", [16, 160])
def test_captured_results_lie_apart(tmp_path: Path, vocab: int, max_len: int) -> None:
    """Logits, and hidden states that prompt log probabilities are made of, whichever of the two take more room."""
    config = make_checkpoint(tmp_path, "LlamaForCausalLM", vocab_size=vocab).config
    by_mindspore, captured = (Driver(tmp_path, config, max_len=max_len, capture_launches=on) for on in (False, True))
    for step in {0: range(5, 14), 2: [40]}, {0: [3], 1: [4], 2: [5]}:
        for expected, found in zip(by_mindspore.step(step), captured.step(step)):
            assert np.array_equal(expected, found)


@pytest.mark.parametrize("head_dim", [16, 24])
def test_rows_that_operators_hand_on_rounded_give_the_same_bits(tmp_path: Path, isa: str, head_dim: int) -> None:
    """Where products round rows of these widths in any case, captured launches do before they write them; a head may lie across tiles of them."""
    widths = {"hidden_size": 64, "head_dim": head_dim, "intermediate_size": 704}
    config = make_checkpoint(tmp_path, "LlamaForCausalLM", "bfloat16", **widths).config
    by_mindspore, captured = (
        Driver(tmp_path, config, "bfloat16", max_len=1200, capture_launches=on) for on in (False, True)
    )
    assert captured.runner._buckets[0]._capture is not None  # or other bits were found when it was made
    for step in PROMPTS, {0: [4], 1: PROMPT, 2: [7], 3: [8]}, {1: [9]}:
        for expected, found in zip(by_mindspore.step(step), captured.step(step)):
            assert np.array_equal(expected, found)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_rows_that_go_through_the_captured_launches_in_blocks_have_the_same_bits(
    checkpoint: tuple[Path, Any], dtype: str, threads: int
) -> None:
    """Up to 128 rows for each thread go through every operator at once, of more each thread takes some through many operators."""
    by_mindspore, captured = (Driver(*checkpoint, dtype, max_len=1200, capture_launches=on) for on in (False, True))
    before = library.num_threads()
    library.set_num_threads(threads)
    try:
        for step in (
            {0: PROMPT[:129], 1: PROMPT[:3]},
            {0: PROMPT[:257]},
            {1: PROMPT[:100], 2: PROMPT, 3: PROMPT[:1]},
            {2: [5]},
        ):
            for expected, found in zip(by_mindspore.step(step), captured.step(step)):
                assert np.array_equal(expected, found)
    finally:
        library.set_num_threads(before)


def test_an_engine_goes_on_while_the_graph_is_compiled_and_its_first_step_waits(
    checkpoint: tuple[Path, Any], dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = Driver(*checkpoint, dtype).step(PROMPTS)
    begun, may_go_on, capture = threading.Event(), threading.Event(), ops.capture

    def capture_later(*args: Any) -> Any:
        begun.set()
        assert may_go_on.wait(60)
        return capture(*args)

    monkeypatch.setattr(ops, "capture", capture_later)
    driver = Driver(*checkpoint, dtype, wait=False)
    assert begun.wait(60)
    with ThreadPoolExecutor(1) as other:
        step = other.submit(driver.step, PROMPTS)
        assert not wait([step], timeout=0.2).done
        may_go_on.set()
    assert all(np.array_equal(*pair) for pair in zip(expected, step.result()))


def test_a_graph_that_cannot_be_compiled_is_reported_at_once_and_by_every_step(
    checkpoint: tuple[Path, Any], dtype: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*args: Any) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(ops, "capture", fail)
    driver = Driver(*checkpoint, dtype, wait=False)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="out of memory"):
            driver.step(PROMPTS)
    assert "no step can be run" in caplog.text


def test_a_step_that_fails_is_over(checkpoint: tuple[Path, Any], dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise no memory is taken ahead of the next ones any more while there are none."""
    driver = Driver(*checkpoint, dtype)

    def fail() -> None:
        raise RuntimeError("no memory")

    told: list[str] = []
    monkeypatch.setattr(driver.runner.kv_cache.ahead, "rest", lambda: told.append("rest"))
    monkeypatch.setattr(driver.runner._buckets[0], "run", lambda model: fail())
    with pytest.raises(RuntimeError, match="no memory"):
        driver.step({0: [1]})
    assert told == ["rest"]


def test_two_networks_keep_their_launches_apart(checkpoint: tuple[Path, Any], dtype: str) -> None:
    alone, first = Driver(*checkpoint, dtype), Driver(*checkpoint, dtype)
    expected = [alone.step(step) for step in (PROMPTS, {0: [1]})]
    found = [first.step(PROMPTS)]
    Driver(*checkpoint, dtype).step({1: list(range(30))})
    found.append(first.step({0: [1]}))
    for right, results in zip(expected, found):
        assert all(np.array_equal(*pair) for pair in zip(right, results))


def test_a_network_with_an_operator_of_mindspores_own_is_run_by_mindspore(
    checkpoint: tuple[Path, Any], dtype: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class ForeignRmsNorm(ops.RmsNorm):
        def construct(self, x: ms.Tensor, gamma: ms.Tensor, num_tokens: ms.Tensor) -> ms.Tensor:
            return ms.ops.mul(super().construct(x, gamma, num_tokens), self.two)

        two = ms.Tensor(np.array(2, np.float32))

    ours = Driver(*checkpoint, dtype)
    monkeypatch.setattr(ops, "RmsNorm", ForeignRmsNorm)
    monkeypatch.setattr(logging.getLogger("vllm_mindspore"), "propagate", True)
    expected, found = (Driver(*checkpoint, dtype, capture_launches=on) for on in (False, True))
    assert "the network has operators that are not ours" in caplog.text
    for step in PROMPTS, {0: [3]}:
        by_mindspore = expected.step(step)
        assert all(np.array_equal(*pair) for pair in zip(by_mindspore, found.step(step)))
        assert not np.array_equal(by_mindspore[0], ours.step(step)[0])


def test_logits_outlive_their_runner(checkpoint: tuple[Path, Any], dtype: str) -> None:
    """vLLM's sampler has them without a copy."""
    driver = Driver(*checkpoint, dtype)
    one = np.ones(1, np.int32)
    batch = StepBatch(one, one - 1, one - 1, driver.tables[:1], one, one, one - 1)
    logits = driver.runner.execute(batch).logits
    expected = logits.copy()
    del driver
    gc.collect()
    assert np.array_equal(logits, expected)


def test_a_run_that_fails_while_it_is_captured_says_why_and_is_forgotten(
    checkpoint: tuple[Path, Any], dtype: str
) -> None:
    driver = Driver(*checkpoint, dtype)
    expected = driver.step(PROMPTS)

    class Failing:
        runs = 0

        def __call__(self, *inputs: ms.Tensor) -> Any:
            self.runs += 1
            if self.runs > 1:
                raise MemoryError("no more")
            return driver.runner.model(*inputs)

    with pytest.raises(MemoryError, match="no more"):
        ops.capture(Failing(), driver.runner._buckets[0].tensors)
    assert library.load().vms_capture_end(None, 0) is None  # nothing is being captured
    for sequence in PROMPTS:
        driver.forget(sequence)
    assert all(np.array_equal(*pair) for pair in zip(expected, driver.step(PROMPTS)))


def test_a_network_that_is_gone_gives_its_memory_back(checkpoint: tuple[Path, Any], dtype: str) -> None:
    """MindSpore keeps the parameters of every graph that it compiled: a process that makes one engine after the other would fill up."""
    process = psutil.Process()

    def held_by_one_more() -> float:
        gc.collect()  # what earlier tests left must not go in between
        before = process.memory_info().rss
        driver = Driver(*checkpoint, dtype, max_len=100_000)
        for blocks in driver.runner.kv_cache._blocks:
            blocks[:] = 1  # all of the cache is used
        driver.step({0: [1, 2, 3]})
        size = sum(blocks.nbytes for blocks in driver.runner.kv_cache._blocks)
        assert process.memory_info().rss - before > 0.9 * size
        del driver
        gc.collect()
        return (process.memory_info().rss - before) / size

    held_by_one_more()
    assert held_by_one_more() < 0.5
