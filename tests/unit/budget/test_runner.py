"""What Python does in a step of the core, however many tokens it has."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.checkpoints import make_checkpoint
from tests.unit.budget.budgets import BUDGET, Cost, allocations, counted

SEQS, BLOCK, LENGTH = 32, 16, 256


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from vllm_mindspore.bootstrap import import_mindspore

    import_mindspore()
    from vllm_mindspore.engine.runner import ModelRunner
    from vllm_mindspore.loader import load_model

    folder = tmp_path_factory.mktemp("model")
    config = make_checkpoint(folder, "LlamaForCausalLM", num_hidden_layers=1, max_position_embeddings=LENGTH).config
    made = ModelRunner(
        load_model(str(folder), config, "float32", show_progress=False, max_position=LENGTH),
        num_blocks=SEQS * LENGTH // BLOCK,
        block_size=BLOCK,
        max_num_tokens=SEQS * 4,
        max_num_seqs=SEQS,
        max_model_len=LENGTH,
    )
    made.warm_up()
    made.wait_for_graphs()
    return made


def batch(seqs: int, tokens: int) -> Any:
    """The first `tokens` of each of `seqs` sequences."""
    from vllm_mindspore.engine.step import StepBatch

    blocks = LENGTH // BLOCK
    tables = np.arange(seqs * blocks, dtype=np.int32).reshape(seqs, blocks)
    positions = np.tile(np.arange(tokens, dtype=np.int32), seqs)
    owners = np.repeat(np.arange(seqs, dtype=np.int32), tokens)
    return StepBatch(
        token_ids=positions,
        position_ids=positions,
        slot_mapping=owners * np.int32(LENGTH) + positions,
        block_tables=tables,
        context_lens=np.full(seqs, tokens, np.int32),
        q_seq_lens=np.full(seqs, tokens, np.int32),
        logits_indices=np.arange(1, seqs + 1, dtype=np.int32) * np.int32(tokens) - np.int32(1),
    )


def cost(runner: Any, seqs: int, tokens: int) -> Cost:
    step = batch(seqs, tokens)
    with counted() as found:
        runner.execute(step)
    return found


def test_python_does_the_same_for_one_token_and_for_many(runner: Any) -> None:
    one = cost(runner, 1, 1)
    assert 0 < one.calls <= BUDGET["runner"]["calls"]
    assert 0 < one.instructions <= BUDGET["runner"]["instructions"]
    assert cost(runner, SEQS, 1) == one
    assert cost(runner, 1, SEQS * 4) == one
    assert cost(runner, SEQS, 4) == one


@pytest.mark.parametrize("seqs", [1, SEQS])
def test_a_step_allocates_next_to_nothing(runner: Any, seqs: int) -> None:
    step, peaks = batch(seqs, 1), []
    for _ in range(5):  # other threads' bytes are counted too, as of an engine that an earlier test has left
        with allocations() as found:
            runner.execute(step)
        peaks.append(found.peak)
    assert 0 < min(peaks) <= BUDGET["runner"]["bytes"]
