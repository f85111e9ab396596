"""A KV cache that is too small, requests that are taken back, prompts that come in pieces or share a beginning: the asynchronous engine in float32."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.engines import counted, started_async
from tests.reference import Reference

pytestmark = pytest.mark.slow

TOLERANCE = 2e-3
"""Logits in float32, which only the order of additions changes."""

PROMPTS = [
    f"{start} and then one day, on the way to the market, "
    for start in ("A fox", "Two old men", "My sister", "The king")
]


def settings(**more: Any) -> Any:
    from vllm import SamplingParams

    return SamplingParams(**{"temperature": 0.0, "max_tokens": 60, "ignore_eos": True, **more})


async def ask(engine: Any, name: str, prompt: str, params: Any, stop_after: int | None = None) -> Any:
    """The request's last output, or the one with `stop_after` tokens, at which the client goes away."""
    output = None
    stream = engine.generate(prompt, params, name)
    try:
        async for output in stream:
            if stop_after is not None and len(output.outputs[0].token_ids) >= stop_after:
                break
    finally:
        await stream.aclose()  # aborts the request if it is not finished
    return output


def ask_all(model: Path, params: Any, **options: Any) -> tuple[list[Any], float]:
    """Outputs for all prompts, and how often one of them was preempted."""

    async def main() -> tuple[list[Any], float]:
        async with started_async(model, **options) as engine:
            before = counted("vllm:num_preemptions")
            outputs = await asyncio.gather(*(ask(engine, str(i), p, params) for i, p in enumerate(PROMPTS)))
            # Statistics of the last steps arrive a little later.
            await asyncio.sleep(0.2)
            return list(outputs), counted("vllm:num_preemptions") - before

    return asyncio.run(main())


STARVED = {"dtype": "float32", "max_model_len": 128, "max_num_seqs": 4, "block_size": 16, "num_gpu_blocks_override": 14}
"""Four sequences of about 75 tokens share 14 blocks of 16."""


def check(outputs: list[Any], reference: Reference) -> None:
    for output in outputs:
        produced = output.outputs[0].token_ids
        assert len(produced) == 60
        assert reference.greedy_gap(output.prompt_token_ids, produced) <= TOLERANCE


@pytest.mark.parametrize(
    "options",
    [{}, {"max_num_batched_tokens": 32, "enable_chunked_prefill": True}, {"enable_prefix_caching": True}],
    ids=["whole prompts", "chunks", "prefix cache"],
)
def test_requests_preempted_and_computed_again_give_the_references_tokens(
    demo_model: Path, reference: Reference, options: dict[str, Any]
) -> None:
    outputs, preemptions = ask_all(demo_model, settings(), **STARVED, **options)
    assert preemptions > 0
    check(outputs, reference)


def test_requests_swapped_out_and_in_give_the_references_tokens(demo_model: Path, reference: Reference) -> None:
    outputs, preemptions = ask_all(demo_model, settings(), **STARVED, preemption_mode="swap", swap_space=1)
    assert preemptions > 0
    check(outputs, reference)


def test_seeds_and_penalties_survive_preemption(demo_model: Path) -> None:
    params = settings(temperature=0.9, seed=5, repetition_penalty=1.2, top_p=0.9)
    roomy = {**STARVED, "num_gpu_blocks_override": 64}
    undisturbed, none = ask_all(demo_model, params, **roomy)
    outputs, preemptions = ask_all(demo_model, params, **STARVED)
    assert none == 0 < preemptions
    assert [list(output.outputs[0].token_ids) for output in outputs] == [
        list(output.outputs[0].token_ids) for output in undisturbed
    ]


def test_requests_taken_back_midway_do_not_harm_the_others(demo_model: Path) -> None:
    async def main() -> tuple[list[int], list[list[int]], list[int]]:
        async with started_async(demo_model, max_model_len=512, max_num_seqs=3) as engine:
            params = settings(max_tokens=40)

            async def produced(name: str, prompt: str, stop_after: int | None = None) -> list[int]:
                return list((await ask(engine, name, prompt, params, stop_after)).outputs[0].token_ids)

            alone = await produced("alone", PROMPTS[0])
            crowd = await asyncio.gather(
                produced("kept", PROMPTS[0]), *(produced(f"cut{i}", PROMPTS[i % 4], 3 * i + 1) for i in range(6))
            )
            return alone, crowd, await produced("after", PROMPTS[0])

    alone, (kept, *cut), after = asyncio.run(main())
    assert alone == kept == after
    assert [len(tokens) >= 3 * i + 1 for i, tokens in enumerate(cut)] == [True] * 6
    assert all(len(tokens) < 40 for tokens in cut)
