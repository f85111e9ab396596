"""Small random checkpoints in float32 through the whole engine: tokens and log probabilities of transformers, tightly."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.checkpoints import make_checkpoint, make_tokenizer
from tests.engines import ROW, TOKENS_PAST_MAX_MODEL_LEN, generate, peak_memory, started, token_prompts, tokens

pytestmark = pytest.mark.slow

TOLERANCE = 2e-3
LONG = {"max_position_embeddings": 64}
PROMPTS = [[5, 17, 3], [(7 * i) % 97 for i in range(70)], [1] * 20]
"""One is longer than the positions that the scaled rotary embeddings were made for."""


YARN = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}
CASES = {
    "Llama": ("LlamaForCausalLM", {}),
    "Llama linear": ("LlamaForCausalLM", {"rope_scaling": {"rope_type": "linear", "factor": 2.0}, **LONG}),
    "Llama dynamic": ("LlamaForCausalLM", {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}, **LONG}),
    "Llama llama3": ("LlamaForCausalLM", {"rope_scaling": {"rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 32}}),
    "Llama yarn": ("LlamaForCausalLM", {"rope_scaling": YARN}),
    "Llama biased untied": ("LlamaForCausalLM", {"tie_word_embeddings": False, "attention_bias": True, "num_key_value_heads": 4}),
    "Mistral": ("MistralForCausalLM", {"sliding_window": 30}),
    "Qwen2": ("Qwen2ForCausalLM", {}),
    "Qwen3": ("Qwen3ForCausalLM", {}),
    "DeepSeek-V2": ("DeepseekV2ForCausalLM", {}),
    "DeepSeek-V2-Lite": ("DeepseekV2ForCausalLM", {"q_lora_rank": None, "topk_method": "greedy", "rope_scaling": {**YARN, "mscale": 0.7, "mscale_all_dim": 0.7}}),
    "DeepSeek-V3": ("DeepseekV3ForCausalLM", {"rope_scaling": {**YARN, "mscale": 1.0, "mscale_all_dim": 1.0}}),
    "Mixtral": ("MixtralForCausalLM", {}),
    "Qwen2-MoE": ("Qwen2MoeForCausalLM", {}),
    "Qwen3-MoE": ("Qwen3MoeForCausalLM", {}),
}  # fmt: skip


def test_every_network_that_the_matrix_names_is_tried() -> None:
    assert {architecture for architecture, _ in CASES.values()} == set(ROW.models)


@pytest.mark.parametrize(("architecture", "options"), CASES.values(), ids=CASES)
def test_tokens_and_logprobs_are_the_references(tmp_path: Path, architecture: str, options: dict[str, Any]) -> None:
    model = make_checkpoint(tmp_path, architecture, **options)
    make_tokenizer(tmp_path)
    # DeepSeek-V2's checkpoints bring their configuration's class along.
    with started(
        tmp_path, dtype="float32", max_model_len=96, max_num_seqs=4, max_num_batched_tokens=96, num_gpu_blocks_override=64, trust_remote_code=True
    ) as llm:  # fmt: skip
        outputs = generate(llm, token_prompts(PROMPTS), logprobs=3, max_tokens=20, ignore_eos=True, detokenize=False)
    for prompt, output in zip(PROMPTS, outputs):
        produced = tokens(output)
        assert len(produced) == 20
        rows = token_by_token(model, [*prompt, *produced])[len(prompt) - 1 :].log_softmax(-1)
        for row, token, found in zip(rows, produced, output.outputs[0].logprobs):
            assert float(row.max() - row[token]) <= TOLERANCE
            for other, entry in found.items():
                assert entry.logprob == pytest.approx(float(row[other]), abs=TOLERANCE)


@pytest.mark.parametrize("option", ["prompt_logprobs", "logprobs"])
def test_log_probabilities_of_a_long_prompt_take_little_memory(tmp_path: Path, option: str) -> None:
    """Its logits and their probabilities are many times the network."""
    make_checkpoint(tmp_path, "LlamaForCausalLM", vocab_size=50_000, max_position_embeddings=2048)
    make_tokenizer(tmp_path)
    short, prompt = (token_prompts([[(7 * i) % 97 for i in range(length)]]) for length in (9, 1800))
    with started(tmp_path, dtype="float32", max_model_len=2048, max_num_seqs=4, num_gpu_blocks_override=300) as llm:
        generate(llm, prompt, max_tokens=1, detokenize=False)
        generate(llm, short, max_tokens=1, detokenize=False, **{option: 1})
        with peak_memory() as held:
            (output,) = generate(llm, prompt, max_tokens=1, detokenize=False, **{option: 1})
    if option == "prompt_logprobs":
        assert len(output.prompt_logprobs) == 1800
    # Once as large as the prompt's logits, as allocators keep some; vLLM's V0 sampler makes six copies of them.
    assert held.growth < 2 * 1800 * 50_000 * 4


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, Any]]:
    """A network with an engine whose contexts end within a block."""
    folder = tmp_path_factory.mktemp("llama")
    model = make_checkpoint(folder, "LlamaForCausalLM", max_position_embeddings=512)
    make_tokenizer(folder)
    with started(folder, dtype="float32", max_model_len=300, max_num_seqs=4, num_gpu_blocks_override=64) as llm:
        yield model, llm


def test_prompt_logprobs_of_many_positions_in_one_step_are_the_references(llama: tuple[Any, Any]) -> None:
    """More than the head is computed for at once."""
    model, llm = llama
    prompts = [[(7 * i) % 97 for i in range(200)], [(11 * i + 3) % 97 for i in range(150)]]
    outputs = generate(llm, token_prompts(prompts), max_tokens=1, prompt_logprobs=1, detokenize=False)
    for prompt, output in zip(prompts, outputs):
        with torch.inference_mode():
            rows = model(torch.tensor([prompt])).logits[0].log_softmax(-1)
        assert len(output.prompt_logprobs) == len(prompt)
        for row, token, found in zip(rows, prompt[1:], output.prompt_logprobs[1:]):
            assert found[token].logprob == pytest.approx(float(row[token]), abs=TOLERANCE)


@pytest.mark.parametrize("length", [280, 299])
def test_a_context_may_end_within_a_block(llama: tuple[Any, Any], length: int) -> None:
    """300 is no multiple of 16: the last tokens, also after a prompt that fills it but for one, are the references all the same."""
    model, llm = llama
    prompt = [(7 * i) % 97 for i in range(length)]
    (output,) = generate(llm, token_prompts([prompt]), ignore_eos=True, detokenize=False)
    produced = tokens(output)
    assert len(produced) == 300 - length + TOKENS_PAST_MAX_MODEL_LEN
    with torch.inference_mode():
        rows = model(torch.tensor([[*prompt, *produced]])).logits[0][length - 1 : -1]
    assert float((rows.max(-1).values - rows[range(len(produced)), produced]).max()) <= TOLERANCE


@torch.inference_mode()
def token_by_token(model: Any, sequence: list[int]) -> torch.Tensor:
    """Logits `[len(sequence), vocab_size]`. The frequencies of dynamic scaling depend on how many tokens have been seen by then."""
    rows, cache = [], None
    for token in sequence:
        output = model(torch.tensor([[token]]), past_key_values=cache, use_cache=True)
        cache = output.past_key_values
        rows.append(output.logits[0, -1])
    return torch.stack(rows)
