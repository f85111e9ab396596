"""Other shapes of engine on the demo model: float32, starved of KV cache, asynchronous, with requests that are taken back."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.reference import Reference
from tests.e2e.starting import started

pytestmark = pytest.mark.slow

TOLERANCE = 2e-3
"""Logits in float32, which only the order of additions changes."""

PROMPTS = [
    f"{start} and then one day, on the way to the market, "
    for start in ("A fox", "Two old men", "My sister", "The king")
]


def test_float32_and_preempted_requests_give_the_references_tokens(demo_model: Path, reference: Reference) -> None:
    """Four sequences of about 100 tokens share 13 blocks of 16, so that they are preempted and computed again, in chunks of 32."""
    from vllm import SamplingParams

    options = {"max_model_len": 128, "max_num_batched_tokens": 32, "max_num_seqs": 4, "enable_chunked_prefill": True}
    params = SamplingParams(temperature=0.0, max_tokens=80, ignore_eos=True)
    with started(demo_model, dtype="float32", num_gpu_blocks_override=14, disable_log_stats=False, **options) as llm:
        outputs = llm.generate(PROMPTS, params, use_tqdm=False)
        # Not every release tells; there, too, four times 7 blocks do not fit into 13.
        metrics = llm.get_metrics() if hasattr(llm, "get_metrics") else []
        preemptions = [metric.value for metric in metrics if metric.name == "vllm:num_preemptions"]
    assert all(preemptions)
    for output in outputs:
        assert len(output.outputs[0].token_ids) == 80
        assert reference.greedy_gap(output.prompt_token_ids, output.outputs[0].token_ids) <= TOLERANCE


def test_requests_taken_back_midway_do_not_harm_the_others(demo_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
    monkeypatch.delenv("VLLM_USE_V1", raising=False)
    from vllm import AsyncEngineArgs, SamplingParams
    from vllm.v1.engine.async_llm import AsyncLLM

    params = SamplingParams(temperature=0.0, max_tokens=40, ignore_eos=True)

    async def ask(engine: Any, name: str, prompt: str, stop_after: int | None = None) -> list[int]:
        produced: list[int] = []
        async for output in engine.generate(prompt, params, name):
            produced = list(output.outputs[0].token_ids)
            if stop_after is not None and len(produced) >= stop_after:
                break  # closes the generator, which aborts the request
        return produced

    async def main() -> tuple[list[int], list[list[int]], list[int]]:
        engine = AsyncLLM.from_engine_args(AsyncEngineArgs(model=str(demo_model), max_model_len=512, max_num_seqs=3))
        try:
            alone = await ask(engine, "alone", PROMPTS[0])
            crowd = await asyncio.gather(
                ask(engine, "kept", PROMPTS[0]), *(ask(engine, f"cut{i}", PROMPTS[i % 4], 3 * i + 1) for i in range(6))
            )
            after = await ask(engine, "after", PROMPTS[0])
            return alone, crowd, after
        finally:
            engine.shutdown()

    alone, (kept, *cut), after = asyncio.run(main())
    assert alone == kept == after
    assert [len(produced) >= 3 * i + 1 for i, produced in enumerate(cut)] == [True] * 6
    assert all(len(produced) < 40 for produced in cut)
