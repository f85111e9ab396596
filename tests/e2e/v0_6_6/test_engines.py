"""Engines of vLLM 0.6.6 on the demo model, in this process: synchronous and asynchronous."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.checkpoints import SMALL, make_checkpoint
from tests.reference import Reference

pytestmark = pytest.mark.slow

FLOAT32 = 2e-3
"""Tolerance of logits in float32, which only the order of additions changes."""
BFLOAT16 = 0.25
"""Where the processor has bfloat16 products, activations are rounded to bfloat16."""
SCHEMA = {
    "type": "object",
    "properties": {"city": {"enum": ["Paris", "Rome"]}, "inhabitants": {"type": "integer"}},
    "required": ["city", "inhabitants"],
    "additionalProperties": False,
}
STORY = "Once upon a time there was a small robot who lived at the edge of a forest. "
PROMPTS = [
    "The capital of France is",
    "def fibonacci(n):\n    ",
    STORY * 12 + "Every morning the robot",
    "1, 2, 3, 4, 5,",
]


@contextlib.contextmanager
def started(model: Path, **options: Any) -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
        patch.delenv("VLLM_USE_V1", raising=False)
        from vllm import LLM

        llm = LLM(str(model), **options)
        try:
            yield llm
        finally:
            del llm
            gc.collect()


def generate(llm: Any, prompts: Any, **params: Any) -> list[Any]:
    from vllm import SamplingParams

    outputs: list[Any] = llm.generate(
        prompts, SamplingParams(**{"temperature": 0.0, "max_tokens": 24, **params}), use_tqdm=False
    )
    return outputs


def tokens(output: Any) -> list[int]:
    return list(output.outputs[0].token_ids)


@pytest.fixture(scope="module")
def llm(demo_model: Path) -> Iterator[Any]:
    with started(demo_model, max_model_len=1024, max_num_seqs=8) as llm:
        yield llm


def test_greedy_tokens_are_the_references(llm: Any, reference: Reference) -> None:
    for output in generate(llm, PROMPTS, ignore_eos=True):
        assert len(tokens(output)) == 24
        assert reference.greedy_gap(output.prompt_token_ids, tokens(output)) <= BFLOAT16


@pytest.mark.parametrize("backend", ["xgrammar", "outlines", "lm-format-enforcer"])
@pytest.mark.parametrize(
    ("guide", "is_right"),
    [
        ({"json": SCHEMA}, lambda text: set(json.loads(text)) == {"city", "inhabitants"}),
        ({"regex": "[a-c]{3}"}, lambda text: len(text) == 3 and set(text) <= set("abc")),
        ({"choice": ["red", "blue"]}, lambda text: text in ("red", "blue")),
        ({"grammar": 'start: "yes" | "no"'}, lambda text: text in ("yes", "no")),
    ],
    ids=["json", "regex", "choice", "grammar"],
)
def test_every_backend_for_guided_decoding_keeps_its_guide(llm: Any, backend: str, guide: Any, is_right: Any) -> None:
    """Whichever vLLM falls back to; greedily, so that the text ends where the guide does."""
    from vllm.sampling_params import GuidedDecodingParams

    (output,) = generate(
        llm, "Tell me: ", guided_decoding=GuidedDecodingParams(backend=backend, **guide), max_tokens=60
    )
    assert is_right(output.outputs[0].text.strip()), output.outputs[0].text


def test_float32_starved_of_blocks_and_without_async_output_gives_the_references_tokens(
    demo_model: Path, reference: Reference
) -> None:
    """Four sequences of about 100 tokens share 13 blocks of 16, so that they are preempted and computed again."""
    prompts = [
        f"{who} and then one day, on the way to the market, "
        for who in ("A fox", "Two old men", "My sister", "The king")
    ]
    options = {"max_model_len": 128, "max_num_seqs": 4, "dtype": "float32", "num_gpu_blocks_override": 13}
    with started(demo_model, disable_async_output_proc=True, **options) as llm:
        outputs = generate(llm, prompts, max_tokens=80, ignore_eos=True)
        preempted = llm.llm_engine.scheduler[0].num_cumulative_preemption
        assert llm.llm_engine.cache_config.num_gpu_blocks == 13
    assert preempted > 0
    for output in outputs:
        assert len(tokens(output)) == 80
        assert reference.greedy_gap(output.prompt_token_ids, tokens(output)) <= FLOAT32


@pytest.mark.parametrize("architecture", ["LlamaForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM"])
def test_every_model_of_the_row_runs(tmp_path: Path, architecture: str) -> None:
    """Also the one that vLLM 0.6.6 itself does not know: transformers brings the configuration and we the network."""
    import torch
    from vllm import TokensPrompt

    model = make_checkpoint(tmp_path, architecture)
    options = {"skip_tokenizer_init": True, "dtype": "float32", "max_model_len": 64, "num_gpu_blocks_override": 16}
    prompts = [[3, 14, 15, 92, 65], [35, 89, 79]]
    with started(tmp_path, **options) as llm:
        outputs = generate(
            llm, [TokensPrompt(prompt_token_ids=p) for p in prompts], max_tokens=12, detokenize=False, ignore_eos=True
        )
    for prompt, output in zip(prompts, outputs):
        with torch.inference_mode():
            rows = model(torch.tensor([[*prompt, *tokens(output)]])).logits[0, len(prompt) - 1 : -1]
        chosen = rows.gather(1, torch.tensor(tokens(output))[:, None])[:, 0]
        assert rows.shape == (12, SMALL["vocab_size"])
        assert float((rows.max(-1).values - chosen).max()) <= FLOAT32


def test_requests_taken_back_midway_do_not_harm_the_others(demo_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The asynchronous engine of this release runs the worker in threads of its own process."""
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
    from vllm import AsyncEngineArgs, AsyncLLMEngine, SamplingParams

    params = SamplingParams(temperature=0.0, max_tokens=40, ignore_eos=True)

    async def ask(engine: Any, name: str, prompt: str, stop_after: int | None = None) -> list[int]:
        produced: list[int] = []
        async for output in engine.generate(prompt, params, name):
            produced = list(output.outputs[0].token_ids)
            if stop_after is not None and len(produced) >= stop_after:
                break  # closes the generator, which aborts the request
        return produced

    async def main() -> tuple[list[int], list[list[int]], list[int], int]:
        engine = AsyncLLMEngine.from_engine_args(
            AsyncEngineArgs(model=str(demo_model), max_model_len=512, max_num_seqs=3)
        )
        try:
            alone = await ask(engine, "alone", PROMPTS[0])
            crowd = await asyncio.gather(
                ask(engine, "kept", PROMPTS[0]), *(ask(engine, f"cut{i}", PROMPTS[i % 4], 3 * i + 1) for i in range(6))
            )
            after = await ask(engine, "after", PROMPTS[0])
            await asyncio.sleep(0.5)
            manager = engine.engine.scheduler[0].block_manager
            held = engine.engine.cache_config.num_gpu_blocks - manager.get_num_free_gpu_blocks()
            return alone, crowd, after, held
        finally:
            engine.shutdown_background_loop()

    alone, (kept, *cut), after, held = asyncio.run(main())
    assert len(alone) == 40
    assert alone == kept == after
    assert [len(produced) >= 3 * i + 1 for i, produced in enumerate(cut)] == [True] * 6
    assert all(len(produced) < 40 for produced in cut)
    assert held == 0
