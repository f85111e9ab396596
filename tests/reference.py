"""What Hugging Face transformers says in float32 about the same weights."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import torch


class Reference:
    """A checkpoint in float32."""

    def __init__(self, path: Path) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self.tokenizer = AutoTokenizer.from_pretrained(path)
        self.model = AutoModelForCausalLM.from_pretrained(path, torch_dtype=torch.float32).eval()
        self._logits = lru_cache(maxsize=64)(self._compute)

    @torch.inference_mode()
    def _compute(self, tokens: tuple[int, ...]) -> torch.Tensor:
        logits: torch.Tensor = self.model(torch.tensor([tokens])).logits[0]
        return logits

    def logits(self, tokens: Sequence[int]) -> torch.Tensor:
        """`[len(tokens), vocab_size]`: row i is what follows token i."""
        return self._logits(tuple(tokens))

    def logprobs(self, tokens: Sequence[int]) -> torch.Tensor:
        """`[len(tokens), vocab_size]`."""
        return self.logits(tokens).log_softmax(-1)

    def greedy_gap(self, prompt: Sequence[int], produced: Sequence[int]) -> float:
        """By how much, at worst, a produced token's logit lies below the best one, given the tokens before it.

        0 if `produced` is the greedy continuation; below the tolerance of the arithmetic if they only differ where
        two logits are as good as equal.
        """
        rows = self.logits([*prompt, *produced])[len(prompt) - 1 : -1]
        chosen = rows.gather(1, torch.tensor(produced)[:, None])[:, 0]
        return float((rows.max(-1).values - chosen).max())
