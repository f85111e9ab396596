"""A worker whose "network" is a hash of what it finds in its KV cache, for tests of the adapter alone.

Every wrong slot, block table, position, length, order or move of a block changes the tokens. No MindSpore.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any

import numpy as np

from vllm_mindspore.engine.step import StepBatch, StepOutput
from vllm_mindspore.matrix import row_for_installed_vllm

BlockPairs = Sequence[tuple[int, int]]

VOCAB = 64

_WORKER = import_module(f"vllm_mindspore.compat.{row_for_installed_vllm().adapter}.worker").MindSporeWorker
"""Of the adapter for the installed vLLM and the engine that is asked for."""


def logits_after(tokens: list[int]) -> np.ndarray:
    """`[VOCAB]` float32: what the network says after these tokens."""
    seed = 7
    for token in tokens:
        seed = (seed * 1_000_003 + token + 1) % (1 << 32)
    return (np.random.RandomState(seed).rand(VOCAB) * 8).astype(np.float32)


class RememberingCache:
    """Stands in for `engine.kv_cache.KVCache`: token and position in each slot."""

    def __init__(self, num_blocks: int, block_size: int, num_host_blocks: int) -> None:
        self.blocks = np.full((num_blocks, block_size, 2), -1)
        self.pool = np.full((num_host_blocks, block_size, 2), -1)
        self.swapped = 0

    def swap_out(self, pairs: BlockPairs) -> None:
        self.swapped += len(pairs)
        for source, destination in pairs:
            self.pool[destination] = self.blocks[source]
            self.blocks[source] = -1

    def swap_in(self, pairs: BlockPairs) -> None:
        for source, destination in pairs:
            self.blocks[destination] = self.pool[source]
            self.pool[source] = -1

    def copy(self, pairs: BlockPairs) -> None:
        for source, destination in pairs:
            self.blocks[destination] = self.blocks[source]


class RememberingRunner:
    """Stands in for `engine.runner.ModelRunner`."""

    computed_tokens = 0
    """Of all steps of all runners."""

    def __init__(self, num_blocks: int, block_size: int, num_host_blocks: int = 0) -> None:
        self.block_size = block_size
        self.max_model_len = num_blocks * block_size
        self.kv_cache = RememberingCache(num_blocks, block_size, num_host_blocks)
        slots = self.kv_cache.blocks.reshape(-1, 2)
        self.tokens, self.positions = slots[:, 0], slots[:, 1]

    def warm_up(self) -> None:
        pass

    def execute(self, batch: StepBatch) -> StepOutput:
        for name, array in vars(batch).items():
            assert array.dtype == np.int32, name
        assert batch.q_seq_lens.sum() == len(batch.token_ids) == len(batch.position_ids) == len(batch.slot_mapping)
        RememberingRunner.computed_tokens += len(batch.token_ids)
        self.tokens[batch.slot_mapping] = batch.token_ids
        self.positions[batch.slot_mapping] = batch.position_ids
        states = []
        for blocks, context, new in zip(batch.block_tables, batch.context_lens, batch.q_seq_lens):
            slots = (blocks[:, None] * self.block_size + np.arange(self.block_size)).ravel()[:context]
            assert (self.positions[slots] == np.arange(context)).all()
            seen = self.tokens[slots].tolist()
            states += [logits_after(seen[: end + 1]) for end in range(context - new, context)]
        hidden = np.array(states)
        logits = hidden[batch.logits_indices]
        return StepOutput(logits, logits.argmax(-1).astype(np.int32), hidden)

    def compute_logits(self, hidden_states: np.ndarray) -> np.ndarray:
        return hidden_states.copy()


class _NoWeights:
    def get_parameters(self) -> list[Any]:
        return []


class RememberingWorker(_WORKER):  # type: ignore[misc, valid-type]
    def init_device(self) -> None:
        pass

    def load_model(self) -> None:
        self.network = _NoWeights()

    def initialize_from_config(self, kv_cache_config: Any) -> None:
        runner = RememberingRunner(kv_cache_config.num_blocks, self.cache_config.block_size)
        self.model_runner = self.model_runner_class(self.vllm_config, runner)

    def initialize_cache(self, num_gpu_blocks: int, num_cpu_blocks: int) -> None:
        from vllm_mindspore.compat.common.v0.model_runner import MindSporeModelRunner

        self.cache_config.num_gpu_blocks, self.cache_config.num_cpu_blocks = num_gpu_blocks, num_cpu_blocks
        runner = RememberingRunner(num_gpu_blocks, self.cache_config.block_size, num_cpu_blocks)
        self.model_runner = MindSporeModelRunner(runner, self.cache_config)  # type: ignore[arg-type]
