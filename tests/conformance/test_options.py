"""An engine of another shape gives the same tokens: dtypes, block sizes, whole prompts, output processing, several steps at once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.engines import generate, started, tokens
from tests.reference import Reference

pytestmark = pytest.mark.slow

PROMPTS = [
    "The capital of France is",
    "def fibonacci(n):\n    ",
    "The old clock on the wall of the station was always five minutes late, and nobody knew why. " * 3,
    "1, 2, 3, 4, 5,",
]
SHAPE = {"max_model_len": 256, "max_num_seqs": 4, "num_gpu_blocks_override": 128}
SEEDED = {"temperature": 0.8, "top_p": 0.9, "seed": 3, "ignore_eos": True}


@pytest.mark.parametrize(
    ("options", "tolerance"),
    [
        ({"dtype": "float32", "block_size": 8}, 2e-3),
        ({"dtype": "float16", "block_size": 32, "enforce_eager": True}, 0.05),
        ({"enable_chunked_prefill": False, "enable_prefix_caching": False, "disable_log_stats": False}, 0.25),
        ({"disable_async_output_proc": True}, 0.25),
    ],
    ids=lambda value: " ".join(f"{k}={v}" for k, v in value.items()) if isinstance(value, dict) else f"within {value}",
)
def test_tokens_are_the_references(
    demo_model: Path, reference: Reference, options: dict[str, Any], tolerance: float
) -> None:
    with started(demo_model, **{**SHAPE, **options}) as llm:
        together = generate(llm, PROMPTS, ignore_eos=True)
        for output in together:
            assert reference.greedy_gap(output.prompt_token_ids, tokens(output)) <= tolerance
        assert [tokens(generate(llm, [p], **SEEDED)[0]) for p in PROMPTS[:2]] == [
            tokens(output) for output in generate(llm, PROMPTS[:2], **SEEDED)
        ]


class TestSeveralStepsAtOnce:
    """`--num-scheduler-steps`: the worker takes steps on its own between two calls of the scheduler."""

    @pytest.fixture(scope="class")
    def llm(self, demo_model: Path) -> Iterator[Any]:
        with started(demo_model, num_scheduler_steps=4, **SHAPE) as llm:
            yield llm

    @pytest.mark.parametrize("length", [1, 3, 4, 5, 17])
    def test_greedy_tokens_are_the_references_and_no_more_than_asked_for(
        self, llm: Any, reference: Reference, length: int
    ) -> None:
        for output in generate(llm, PROMPTS, max_tokens=length, ignore_eos=True):
            assert len(tokens(output)) == length
            assert reference.greedy_gap(output.prompt_token_ids, tokens(output)) <= 0.25

    def test_logprobs_are_the_references(self, llm: Any, reference: Reference) -> None:
        for output in generate(llm, PROMPTS[:2], max_tokens=10, logprobs=2, ignore_eos=True):
            prompt = output.prompt_token_ids
            rows = reference.logprobs([*prompt, *tokens(output)])[len(prompt) - 1 :]
            assert len(output.outputs[0].logprobs) == 10
            for row, token, found in zip(rows, tokens(output), output.outputs[0].logprobs):
                assert found[token].logprob == pytest.approx(float(row[token]), abs=0.25)

    def test_a_seed_gives_the_same_tokens_alone_and_in_a_crowd(self, llm: Any) -> None:
        alone = [tokens(generate(llm, [prompt], **SEEDED)[0]) for prompt in PROMPTS]
        assert alone == [tokens(output) for output in generate(llm, PROMPTS, **SEEDED)]

    def test_stop_strings_end_an_answer_between_two_calls(self, llm: Any) -> None:
        for stop, end in ((" 7", "6,"), (" 8", "7,"), (" 9", "8,")):
            (output,) = generate(llm, PROMPTS[3:4], stop=[stop], max_tokens=40)
            assert output.outputs[0].finish_reason == "stop"
            assert output.outputs[0].text.endswith(end)
