"""Drives a `ModelRunner` as a scheduler would, for one process and without vLLM."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vllm_mindspore.engine.step import StepBatch


def reference(model: Any, tokens: Sequence[int]) -> np.ndarray:
    """Logits `[tokens, vocab]` of a model of transformers."""
    with torch.inference_mode():
        return model(torch.tensor([list(tokens)]), use_cache=False).logits[0].numpy()


class Driver:
    """Sequences with block tables of their own, in a random order of blocks."""

    def __init__(
        self,
        folder: Path,
        hf_config: Any,
        dtype: str = "float32",
        *,
        num_seqs: int = 4,
        max_len: int = 160,
        block_size: int = 8,
        max_num_tokens: int | None = None,
        num_host_blocks: int = 0,
        capture_launches: bool = True,
        weight_dtype: str | None = None,
        wait: bool = True,
    ) -> None:
        from vllm_mindspore.engine.runner import ModelRunner
        from vllm_mindspore.loader import load_model

        network = load_model(
            str(folder), hf_config, dtype, show_progress=False, weight_dtype=weight_dtype, max_position=max_len
        )
        blocks = -(-max_len // block_size)
        self.block_size = block_size
        self.tables = np.random.default_rng(0).permutation(num_seqs * blocks).astype(np.int32).reshape(num_seqs, blocks)
        self.lengths = [0] * num_seqs
        self.runner = ModelRunner(
            network,
            num_blocks=num_seqs * blocks,
            block_size=block_size,
            num_host_blocks=num_host_blocks,
            max_num_tokens=max_num_tokens or max_len,
            max_num_seqs=num_seqs,
            max_model_len=max_len,
            capture_launches=capture_launches,
        )
        self.runner.warm_up()
        if wait:
            self.runner.wait_for_graphs()

    def step(self, new: dict[int, Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
        """Feed tokens to sequences; hidden states' logits of every token `[tokens, vocab]` and the greedy token of each sequence."""
        tokens: list[int] = []
        positions: list[int] = []
        slots: list[int] = []
        for sequence, ids in new.items():
            for position, token in enumerate(ids, self.lengths[sequence]):
                tokens.append(token)
                positions.append(position)
                slots.append(
                    int(self.tables[sequence][position // self.block_size]) * self.block_size
                    + position % self.block_size
                )
            self.lengths[sequence] += len(ids)
        counts = [len(ids) for ids in new.values()]

        def vector(values: Sequence[int]) -> np.ndarray:
            return np.array(values, np.int32)

        output = self.runner.execute(
            StepBatch(
                token_ids=vector(tokens),
                position_ids=vector(positions),
                slot_mapping=vector(slots),
                block_tables=self.tables[list(new)],
                context_lens=vector([self.lengths[sequence] for sequence in new]),
                q_seq_lens=vector(counts),
                logits_indices=vector(np.cumsum(counts) - 1),
            )
        )
        last, greedy = output.logits.copy(), output.greedy_token_ids.copy()
        logits = self.runner.compute_logits(output.hidden_states.copy())
        assert np.array_equal(logits[np.cumsum(counts) - 1], last)
        assert np.array_equal(last.argmax(1), greedy)
        return logits, greedy

    def forget(self, sequence: int) -> None:
        self.lengths[sequence] = 0
