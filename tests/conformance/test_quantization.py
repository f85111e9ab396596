"""int8 weights: made of a float checkpoint as it is loaded, hardly worse than the checkpoint itself; or read, as compressed-tensors stores them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.checkpoints import make_model, make_tokenizer, round_weights, save_as_int8
from tests.engines import answer, generate, started, token_prompts, tokens
from tests.reference import Reference

pytestmark = pytest.mark.slow

TEXT = """\
The water cycle describes how water moves between the surface of the earth and the air above it. The sun warms lakes, rivers and seas, and some of
their water turns into vapour and rises. High up the air is cold: the vapour becomes small drops, and many drops together make a cloud. When the drops
grow heavy, they fall as rain or snow. Some of that water runs over the ground into streams and rivers, some soaks into the soil, where the roots of
plants drink it, and the rest fills the spaces between stones deep below. In the end nearly all of it comes back to the sea, and the cycle begins
again. People have always depended on it. Farmers plan their work by the seasons, cities store water behind dams, and engineers measure how much snow
lies in the mountains to know how much water the summer will bring.
"""


@pytest.fixture(scope="module")
def llm(demo_model: Path) -> Iterator[Any]:
    with started(demo_model, max_model_len=1024, max_num_seqs=4, quantization="tpu_int8") as llm:
        yield llm


def test_the_perplexity_of_a_text_is_within_one_percent(llm: Any, reference: Reference) -> None:
    tokens = reference.tokenizer(TEXT).input_ids
    (output,) = generate(llm, token_prompts([tokens]), max_tokens=1, prompt_logprobs=0)
    found = [entry[token].logprob for entry, token in zip(output.prompt_logprobs[1:], tokens[1:])]
    right = reference.logprobs(tokens)[range(len(tokens) - 1), tokens[1:]].tolist()
    ratio = math.exp((sum(right) - sum(found)) / len(found))
    assert abs(ratio - 1) < 0.01, f"{100 * (ratio - 1):+.2f} %"
    assert max(abs(a - b) for a, b in zip(found, right)) > 0.01, "weights in their own precision"


def test_the_model_answers_through_its_chat_template(llm: Any) -> None:
    assert "Paris" in answer(llm, "What is the capital of France?")


def test_a_checkpoint_in_int8_gives_the_logprobs_of_what_it_stands_for(tmp_path: Path) -> None:
    model = make_model("LlamaForCausalLM")
    round_weights(model, "bfloat16")
    save_as_int8(tmp_path, model, packed=False)
    make_tokenizer(tmp_path)
    prompt = [5, 17, 3, 88, 41, 9]
    with started(tmp_path, max_model_len=96, max_num_seqs=4, num_gpu_blocks_override=64) as llm:
        (output,) = generate(llm, token_prompts([prompt]), logprobs=3, max_tokens=20, ignore_eos=True, detokenize=False)
    produced = tokens(output)
    with torch.inference_mode():
        logits = model(torch.tensor([[*prompt, *produced]])).logits[0]
    for row, found in zip(logits[len(prompt) - 1 :].log_softmax(-1), output.outputs[0].logprobs):
        for token, entry in found.items():
            assert entry.logprob == pytest.approx(float(row[token]), abs=0.1)  # the KV cache is bfloat16
