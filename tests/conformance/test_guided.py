"""Structured output, with each backend that vLLM ever shipped."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.engines import generate, started, tokens

pytestmark = pytest.mark.slow

SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "adult": {"type": "boolean"}},
    "required": ["name", "adult"],
    "additionalProperties": False,
}
GRAMMAR = 'start: "SELECT " column " FROM t"\ncolumn: "a" | "b"\n'
"""Of the kind that all backends take: Lark's."""
NUMBER = r"\d{3}-\d{2}"
PROMPTS = ["The answer is:", "Water boils at", "My favourite colour is", "1, 2, 3, 4, 5,"]


@pytest.fixture(scope="module", params=["xgrammar", "guidance", "outlines", "lm-format-enforcer"])
def llm(demo_model: Path, request: pytest.FixtureRequest) -> Iterator[Any]:
    with started(
        demo_model, max_model_len=512, max_num_seqs=8, num_gpu_blocks_override=256, guided_decoding_backend=request.param
    ) as llm:  # fmt: skip
        yield llm


def guided(llm: Any, prompts: list[str], **guide: Any) -> list[str]:
    from vllm.sampling_params import GuidedDecodingParams

    outputs = generate(llm, prompts, max_tokens=60, guided_decoding=GuidedDecodingParams(**guide))
    return [output.outputs[0].text for output in outputs]


def check_person(text: str) -> None:
    person = json.loads(text)
    assert set(person) == {"name", "adult"}
    assert isinstance(person["name"], str)
    assert isinstance(person["adult"], bool)


def test_json(llm: Any) -> None:
    (text,) = guided(llm, ["A person as JSON, name first: "], json=SCHEMA)
    check_person(text)


def test_regex(llm: Any) -> None:
    for text in guided(llm, PROMPTS[:2], regex=NUMBER):
        assert re.fullmatch(NUMBER, text)


def test_choice(llm: Any) -> None:
    for text in guided(llm, PROMPTS[:2], choice=["violet", "orange"]):
        assert text in ("violet", "orange")


def test_grammar(llm: Any) -> None:
    (text,) = guided(llm, PROMPTS[:1], grammar=GRAMMAR)
    assert re.fullmatch("SELECT [ab] FROM t", text)


def test_each_request_has_its_own_guide_beside_free_ones(llm: Any) -> None:
    """A mask that is applied to the wrong row shows."""
    from vllm import SamplingParams
    from vllm.sampling_params import GuidedDecodingParams

    free = [tokens(output) for output in generate(llm, PROMPTS, ignore_eos=True)]
    guides: list[dict[str, Any] | None] = [{"regex": NUMBER}, None, {"choice": ["violet", "orange"]}, None]
    params = [
        SamplingParams(
            temperature=0.0, max_tokens=24, ignore_eos=guide is None,
            guided_decoding=GuidedDecodingParams(**guide) if guide else None,
        )
        for guide in guides
    ]  # fmt: skip
    outputs = llm.generate(PROMPTS, params, use_tqdm=False)
    assert re.fullmatch(NUMBER, outputs[0].outputs[0].text)
    assert outputs[2].outputs[0].text in ("violet", "orange")
    assert [tokens(outputs[row]) for row in (1, 3)] == [free[1], free[3]]
