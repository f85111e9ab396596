"""A cache of latents under everything that a scheduler does with blocks: DeepSeek-V3 in float32, asynchronously."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.checkpoints import make_checkpoint, make_tokenizer
from tests.engines import counted, started_async, token_prompts, tokens

pytestmark = pytest.mark.slow

TOLERANCE = 2e-3
LENGTH = 320
NEW_TOKENS = 240
"""So many steps that the first request is not done before the last has come, however slowly the client sends them."""
BEGINNING = [(5 * i) % 97 for i in range(40)]
PROMPTS = [[*BEGINNING, start, 3, 4] for start in (11, 23, 37, 41)]
"""Longer than a step, with a beginning of two blocks and a half in common."""


def test_chunks_cached_prefixes_and_preemption_change_no_token(tmp_path: Path) -> None:
    from vllm import SamplingParams

    model = make_checkpoint(tmp_path, "DeepseekV3ForCausalLM", max_position_embeddings=LENGTH)
    make_tokenizer(tmp_path)
    params = SamplingParams(temperature=0.0, max_tokens=NEW_TOKENS, ignore_eos=True, detokenize=False)

    async def ask(engine: Any, name: str, prompt: Any) -> Any:
        return [output async for output in engine.generate(prompt, params, name)][-1]

    async def main() -> tuple[list[Any], list[Any], float]:
        async with started_async(
            tmp_path,
            dtype="float32",
            max_model_len=LENGTH,
            max_num_seqs=4,
            max_num_batched_tokens=32,
            enable_chunked_prefill=True,
            enable_prefix_caching=True,
            block_size=16,
            num_gpu_blocks_override=40,  # for four sequences of 283
        ) as engine:
            before = counted("vllm:num_preemptions")
            prompts = token_prompts(PROMPTS)
            alone = [await ask(engine, f"alone {i}", prompt) for i, prompt in enumerate(prompts)]
            crowded = await asyncio.gather(*(ask(engine, f"crowded {i}", p) for i, p in enumerate(prompts)))
            await asyncio.sleep(0.2)  # statistics of the last steps arrive a little later
            return alone, list(crowded), counted("vllm:num_preemptions") - before

    alone, crowded, preemptions = asyncio.run(main())
    assert preemptions > 0
    # None where the release does not tell.
    assert alone[1].num_cached_tokens in (32, None)
    for prompt, first, second in zip(PROMPTS, alone, crowded):
        produced = tokens(first)
        assert len(produced) == NEW_TOKENS
        assert tokens(second) == produced
        with torch.inference_mode():
            rows = model(torch.tensor([[*prompt, *produced]])).logits[0][len(prompt) - 1 : -1]
        assert float((rows.max(-1).values - rows[range(NEW_TOKENS), produced]).max()) <= TOLERANCE
