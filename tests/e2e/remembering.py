"""A worker whose "network" is a hash of what it finds in its KV cache, for tests of the adapter alone.

Every wrong slot, block table, position, length or order changes the tokens. No MindSpore.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np

from vllm_mindspore.compat.common.host_torch import HostTorch
from vllm_mindspore.engine.step import StepBatch, StepOutput
from vllm_mindspore.matrix import row_for_installed_vllm

VOCAB = 64

_WORKER = import_module(f"vllm_mindspore.compat.{row_for_installed_vllm('V1').adapter}.worker").MindSporeWorker
"""Of the V1 adapter for the installed vLLM."""


def logits_after(tokens: list[int]) -> np.ndarray:
    """`[VOCAB]` float32: what the network says after these tokens."""
    seed = 7
    for token in tokens:
        seed = (seed * 1_000_003 + token + 1) % (1 << 32)
    return (np.random.RandomState(seed).rand(VOCAB) * 8).astype(np.float32)


class RememberingRunner:
    """Stands in for `engine.runner.ModelRunner`."""

    def __init__(self, num_blocks: int, block_size: int) -> None:
        self.block_size = block_size
        self.tokens = np.full(num_blocks * block_size, -1)
        self.positions = np.full(num_blocks * block_size, -1)

    def warm_up(self) -> None:
        pass

    def execute(self, batch: StepBatch) -> StepOutput:
        for name, array in vars(batch).items():
            assert array.dtype == np.int32, name
        assert batch.q_seq_lens.sum() == len(batch.token_ids) == len(batch.position_ids) == len(batch.slot_mapping)
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
        self.model_runner = self.model_runner_class(self.vllm_config, runner, HostTorch())
