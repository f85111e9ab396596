"""What each sampling parameter means to its user: the demo model against transformers in float32, in chunks, with a prefix cache."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.engines import IS_V1, TOKENS_PAST_MAX_MODEL_LEN, answer, generate, started, token_prompts, tokens
from tests.reference import Reference

pytestmark = pytest.mark.slow

TOLERANCE = 0.25
"""Logits: weights are bfloat16 on both sides, our activations are rounded to bfloat16 where the processor has bfloat16 products."""

STORY = "Once upon a time there was a small robot who lived at the edge of a forest. "
PROMPTS = [
    "The capital of France is",
    "def fibonacci(n):\n    ",
    "Water boils at",
    STORY * 12 + "Every morning the robot",  # several chunks of 64 tokens
    "1, 2, 3, 4, 5,",
    "My favourite colour is",
]


@pytest.fixture(scope="module")
def llm(demo_model: Path) -> Iterator[Any]:
    with started(
        demo_model, max_model_len=1024, max_num_batched_tokens=64, max_num_seqs=8, enable_chunked_prefill=True, enable_prefix_caching=True
    ) as llm:  # fmt: skip
        yield llm


@pytest.fixture(scope="module")
def greedy(llm: Any) -> list[Any]:
    """Greedy continuations of all prompts in one batch."""
    return generate(llm, PROMPTS, ignore_eos=True)


def test_greedy_tokens_are_the_references(greedy: list[Any], reference: Reference) -> None:
    for output in greedy:
        assert reference.greedy_gap(output.prompt_token_ids, tokens(output)) <= TOLERANCE


def test_the_model_answers_through_its_chat_template(llm: Any) -> None:
    assert "Paris" in answer(llm, "What is the capital of France?")


def test_greedy_tokens_do_not_depend_on_neighbours(llm: Any, greedy: list[Any]) -> None:
    for prompt, crowded in zip(PROMPTS, greedy):
        (alone,) = generate(llm, [prompt], ignore_eos=True)
        assert tokens(alone) == tokens(crowded)


def test_greedy_tokens_do_not_depend_on_a_neighbours_parameters(llm: Any, greedy: list[Any]) -> None:
    """One row that wants more than a draw brings in vLLM's sampler, where else the kernels' argmax is all."""
    from vllm import SamplingParams

    plain = SamplingParams(temperature=0.0, max_tokens=24, ignore_eos=True)
    odd = SamplingParams(temperature=1.0, seed=1, max_tokens=30, repetition_penalty=1.3, logprobs=2)
    mixed = llm.generate(PROMPTS, [plain] * (len(PROMPTS) - 1) + [odd], use_tqdm=False)
    assert [tokens(output) for output in mixed[:-1]] == [tokens(output) for output in greedy[:-1]]


def test_a_prefix_cache_hit_changes_nothing(llm: Any) -> None:
    prompt = "A lighthouse keeper writes in his diary. " * 20
    (first,) = generate(llm, [prompt])
    (second,) = generate(llm, [prompt])
    assert not first.num_cached_tokens
    # None where the release does not tell; tests/e2e/test_scheduling.py counts what is computed.
    assert second.num_cached_tokens is None or second.num_cached_tokens >= 16
    assert tokens(second) == tokens(first)


def test_logprobs_agree_with_the_reference(llm: Any, reference: Reference) -> None:
    for output in generate(llm, PROMPTS[:4], max_tokens=8, logprobs=5, ignore_eos=True):
        produced = tokens(output)
        rows = reference.logprobs([*output.prompt_token_ids, *produced])[len(output.prompt_token_ids) - 1 :]
        for row, token, found in zip(rows, produced, output.outputs[0].logprobs):
            assert found[token].rank == 1
            assert len(found) == 5
            check_logprobs(row, found)


def test_prompt_logprobs_agree_with_the_reference_over_chunks(llm: Any, reference: Reference) -> None:
    for output in generate(llm, PROMPTS[2:4], max_tokens=1, prompt_logprobs=3):
        prompt = output.prompt_token_ids
        assert output.prompt_logprobs[0] is None
        assert len(output.prompt_logprobs) == len(prompt)
        for row, token, found in zip(reference.logprobs(prompt), prompt[1:], output.prompt_logprobs[1:]):
            assert token in found
            check_logprobs(row, found)


def test_prompt_logprobs_are_those_of_the_temperature_in_every_chunk_or_in_none(llm: Any, reference: Reference) -> None:
    """V0's are those that it samples from, V1's those of the model."""
    (output,) = generate(llm, PROMPTS[3:4], max_tokens=1, prompt_logprobs=0, temperature=0.5, seed=1)
    prompt = output.prompt_token_ids
    rows = reference.logits(prompt)[:-1] / (1.0 if IS_V1 else 0.5)
    for row, token, found in zip(rows.log_softmax(-1), prompt[1:], output.prompt_logprobs[1:]):
        assert found[token].logprob == pytest.approx(float(row[token]), abs=2 * TOLERANCE)


def test_prompt_logprobs_are_whole_after_a_prefix_cache_hit(llm: Any) -> None:
    prompt = "The old clock on the wall of the station was always five minutes late. " * 4
    first, second = (generate(llm, [prompt], max_tokens=1, prompt_logprobs=0)[0] for _ in range(2))
    assert len(first.prompt_logprobs) == len(first.prompt_token_ids) == len(second.prompt_logprobs)
    for found, again in zip(first.prompt_logprobs[1:], second.prompt_logprobs[1:]):
        assert {token: entry.logprob for token, entry in again.items()} == {
            token: pytest.approx(entry.logprob, abs=1e-4) for token, entry in found.items()
        }


def check_logprobs(expected: torch.Tensor, found: dict[int, Any]) -> None:
    for token, entry in found.items():
        assert entry.logprob == pytest.approx(float(expected[token]), abs=TOLERANCE)
        better = expected[expected > expected[token] + TOLERANCE]
        assert entry.rank > len(better) * 0.9
    # No token is missing that is clearly better than the worst of those given.
    best = expected.topk(len(found)).values
    assert sorted((entry.logprob for entry in found.values()), reverse=True)[0] == pytest.approx(
        float(best[0]), abs=TOLERANCE
    )


def test_a_seed_gives_the_same_tokens_alone_and_in_a_crowd(llm: Any) -> None:
    def ask(seed: int, prompts: list[str]) -> list[int]:
        return tokens(generate(llm, prompts, temperature=1.0, top_p=0.95, seed=seed)[0])

    assert ask(1, PROMPTS[:1]) == ask(1, PROMPTS[:1]) == ask(1, PROMPTS)
    assert ask(1, PROMPTS[:1]) != ask(2, PROMPTS[:1])


def test_a_seed_gives_the_same_tokens_whatever_neighbours_want(llm: Any) -> None:
    """Neighbours with log probabilities or penalties are left to vLLM's sampler, on V0 all of their way."""
    from vllm import SamplingParams

    seeded = SamplingParams(temperature=1.0, top_p=0.95, top_k=200, seed=1, max_tokens=24)
    odd = SamplingParams(temperature=1.0, seed=1, max_tokens=24, repetition_penalty=1.3, logprobs=2)
    drawn = SamplingParams(temperature=1.0, seed=1, max_tokens=24, min_p=0.02)
    (alone,) = llm.generate(PROMPTS[:1], seeded, use_tqdm=False)
    mixed = llm.generate([PROMPTS[1], PROMPTS[0], PROMPTS[2]], [odd, seeded, drawn], use_tqdm=False)
    assert tokens(mixed[1]) == tokens(alone)


def test_tokens_are_drawn_as_often_as_the_reference_would(llm: Any, reference: Reference) -> None:
    temperature, top_p, draws = 1.3, 0.8, 300
    (output,) = generate(llm, ["I like to eat"], temperature=temperature, top_p=top_p, n=draws, max_tokens=1)
    probabilities = (reference.logits(output.prompt_token_ids)[-1] / temperature).softmax(-1)
    drawn = torch.tensor([one.token_ids[0] for one in output.outputs])
    ordered = probabilities.sort(descending=True)
    # The likely half, as a whole, is drawn as often as it is due among those that top-p leaves; nothing is drawn far beyond them.
    beyond = ordered.indices[ordered.values.cumsum(-1) > top_p + 0.03]
    likely = ordered.indices[ordered.values.cumsum(-1) <= top_p / 2]
    assert not torch.isin(drawn, beyond).any()
    due = float(probabilities[likely].sum()) / top_p
    assert torch.isin(drawn, likely).float().mean().item() == pytest.approx(due, abs=0.12)
    assert len(set(drawn.tolist())) > 20


@pytest.mark.parametrize("params", [{"top_k": 1}, {"top_p": 1e-6}, {"min_p": 1.0}])
def test_sampling_narrowed_to_one_token_is_greedy(llm: Any, greedy: list[Any], params: dict[str, Any]) -> None:
    (output,) = generate(llm, PROMPTS[:1], temperature=1.0, seed=3, ignore_eos=True, **params)
    assert tokens(output) == tokens(greedy[0])


def test_top_k_and_min_p_bound_what_is_sampled(llm: Any) -> None:
    (output,) = generate(
        llm, PROMPTS[5:6], temperature=1.5, seed=4, top_k=3, logprobs=0, max_tokens=40, ignore_eos=True
    )
    assert max(found[token].rank for token, found in zip(tokens(output), output.outputs[0].logprobs)) in (2, 3)
    (output,) = generate(
        llm, PROMPTS[5:6], temperature=1.0, seed=4, min_p=0.2, logprobs=1, max_tokens=40, ignore_eos=True
    )
    for token, found in zip(tokens(output), output.outputs[0].logprobs):
        best = max(entry.logprob for entry in found.values())
        assert found[token].logprob >= best + torch.tensor(0.2).log().item() - 1e-4


def test_temperature_flattens(llm: Any) -> None:
    def distinct(temperature: float) -> int:
        (output,) = generate(llm, ["I like to eat"], temperature=temperature, seed=5, n=24, max_tokens=1)
        return len({tuple(one.token_ids) for one in output.outputs})

    assert distinct(0.05) < distinct(1.5)


def test_n_gives_n_different_samples(llm: Any) -> None:
    (output,) = generate(llm, PROMPTS[5:6], temperature=1.2, seed=6, n=3)
    assert len({one.text for one in output.outputs}) == 3


@pytest.mark.parametrize(
    "penalty", [{"frequency_penalty": 1.5}, {"presence_penalty": 2.0}, {"repetition_penalty": 1.7}]
)
def test_penalties_are_those_of_the_formula(llm: Any, reference: Reference, penalty: dict[str, float]) -> None:
    """OpenAI's frequency and presence penalty count the output; the repetition penalty (CTRL, section 4.1) the prompt as well."""
    (output,) = generate(llm, ["la la la la la la la la"], max_tokens=20, ignore_eos=True, **penalty)
    prompt, produced = output.prompt_token_ids, tokens(output)
    rows = reference.logits([*prompt, *produced])[len(prompt) - 1 :].clone()
    for position, token in enumerate(produced):
        row = rows[position]
        counts = torch.bincount(torch.tensor(produced[:position], dtype=torch.int64), minlength=len(row))
        row -= penalty.get("frequency_penalty", 0.0) * counts
        row -= penalty.get("presence_penalty", 0.0) * (counts > 0)
        seen = list({*prompt, *produced[:position]})
        factor = penalty.get("repetition_penalty", 1.0)
        row[seen] = torch.where(row[seen] > 0, row[seen] / factor, row[seen] * factor)
        assert float(row.max() - row[token]) <= TOLERANCE


def test_logit_bias_and_allowed_tokens(llm: Any, greedy: list[Any]) -> None:
    best = tokens(greedy[0])[0]
    (banned,) = generate(llm, PROMPTS[:1], logit_bias={best: -100}, max_tokens=1)
    assert tokens(banned) != [best]
    (allowed,) = generate(llm, PROMPTS[:1], allowed_token_ids=[100, 200], max_tokens=6)
    assert set(tokens(allowed)) <= {100, 200}


def test_bad_words_do_not_appear(llm: Any) -> None:
    (plain,) = generate(llm, PROMPTS[:1])
    assert "Paris" in plain.outputs[0].text
    (output,) = generate(llm, PROMPTS[:1], bad_words=["Paris"])
    assert "Paris" not in output.outputs[0].text


def test_stop_strings_and_stop_tokens(llm: Any) -> None:
    (output,) = generate(llm, PROMPTS[4:5], stop=[" 8"], max_tokens=40)
    assert output.outputs[0].finish_reason == "stop"
    assert output.outputs[0].text.endswith("7,")
    seven = llm.get_tokenizer().encode(" 7", add_special_tokens=False)[-1]
    (output,) = generate(llm, PROMPTS[4:5], stop_token_ids=[seven], max_tokens=40)
    assert tokens(output)[-1] == output.outputs[0].stop_reason == seven


def test_min_tokens_puts_the_end_off(llm: Any) -> None:
    comma = llm.get_tokenizer().encode(",", add_special_tokens=False)[-1]
    (short,) = generate(llm, PROMPTS[4:5], stop_token_ids=[comma], max_tokens=30)
    assert len(tokens(short)) < 5
    (output,) = generate(llm, PROMPTS[4:5], stop_token_ids=[comma], max_tokens=30, min_tokens=12)
    assert len(tokens(output)) >= 12
    assert comma not in tokens(output)[:11]
    # Stop tokens that the model does not have do no harm.
    strange = [comma, 1_000_000, -1]
    (again,) = generate(llm, PROMPTS[4:5], stop_token_ids=strange, max_tokens=30, min_tokens=12)
    assert tokens(again) == tokens(output)


def test_a_bias_of_tokens_that_the_model_lacks_is_refused_or_passed_over(llm: Any, greedy: list[Any]) -> None:
    """vLLM 0.8.3's V1 has a sampler that writes to their logits."""
    with suppress(ValueError):
        (output,) = generate(llm, PROMPTS[:1], logit_bias={1_000_000: 5.0, -3: 5.0}, ignore_eos=True)
        assert tokens(output) == tokens(greedy[0])
    (again,) = generate(llm, PROMPTS[:1], ignore_eos=True)
    assert tokens(again) == tokens(greedy[0])


def test_best_of_gives_the_most_likely_samples(llm: Any) -> None:
    params = {"temperature": 1.2, "seed": 6, "logprobs": 0, "max_tokens": 8, "ignore_eos": True}
    (all_of_them,) = generate(llm, PROMPTS[5:6], n=4, **params)
    (best,) = generate(llm, PROMPTS[5:6], n=2, best_of=4, **params)
    ranked = sorted(all_of_them.outputs, key=lambda one: one.cumulative_logprob, reverse=True)
    assert [one.token_ids for one in best.outputs] == [one.token_ids for one in ranked[:2]]


def test_beam_search_finds_what_a_plain_one_finds(llm: Any, reference: Reference) -> None:
    from vllm.sampling_params import BeamSearchParams

    width, length = 3, 5
    prompt = reference.tokenizer.encode("My favourite colour is")
    beams: list[tuple[float, list[int]]] = [(0.0, [])]
    for _ in range(length):
        longer = []
        for score, produced in beams:
            best = reference.logprobs([*prompt, *produced])[-1].topk(2 * width)
            longer += [(score + float(v), [*produced, int(t)]) for v, t in zip(best.values, best.indices)]
        beams = sorted(longer, reverse=True)[:width]

    params = BeamSearchParams(beam_width=width, max_tokens=length, ignore_eos=True)
    (found,) = llm.beam_search([beam_prompt(prompt)], params)
    assert len(found.sequences) == width
    for beam, (score, _) in zip(found.sequences, beams):
        produced = beam.tokens[len(prompt) :]
        rows = reference.logprobs(beam.tokens)[len(prompt) - 1 : -1]
        assert beam.cum_logprob == pytest.approx(
            sum(float(row[t]) for row, t in zip(rows, produced)), abs=length * TOLERANCE
        )
        assert beam.cum_logprob == pytest.approx(score, abs=length * TOLERANCE)


def test_logits_processors_see_the_output_and_change_the_logits(llm: Any) -> None:
    seen = []

    def odd_only(produced: Any, logits: torch.Tensor) -> torch.Tensor:
        seen.append(len(produced))
        logits[0::2] = -torch.inf
        return logits

    (output,) = generate(llm, PROMPTS[:1], logits_processors=[odd_only], max_tokens=8, ignore_eos=True)
    assert all(token % 2 for token in tokens(output))
    # V0 may take one step more while it still processes the output that ends the request.
    assert seen[:8] == list(range(8))


def test_parameters_of_many_kinds_do_not_disturb_each_other(llm: Any) -> None:
    """Every pair of neighbours gets the tokens that each gets alone."""
    from vllm import SamplingParams

    kinds: list[dict[str, Any]] = [
        {"temperature": 0.0}, {"temperature": 0.9, "seed": 11, "top_p": 0.8}, {"temperature": 0.0, "repetition_penalty": 1.5},
        {"temperature": 0.0, "logit_bias": {260: 8.0}}, {"temperature": 0.7, "seed": 12, "min_p": 0.1, "frequency_penalty": 0.5},
        {"temperature": 0.0, "logprobs": 3}, {"temperature": 1.0, "seed": 13, "top_k": 7, "min_tokens": 9, "stop_token_ids": [28]},
    ]  # fmt: skip
    params = [SamplingParams(max_tokens=16, ignore_eos=True, **kind) for kind in kinds]
    alone = [tokens(llm.generate(PROMPTS[1:2], one, use_tqdm=False)[0]) for one in params]
    for order in itertools.islice(itertools.permutations(range(len(params))), 0, 5000, 2500):
        outputs = llm.generate(PROMPTS[1:2] * len(params), [params[i] for i in order], use_tqdm=False)
        assert [tokens(output) for output in outputs] == [alone[i] for i in order]


def test_a_prompt_as_long_as_the_model_may_see_gives_one_token(llm: Any) -> None:
    (output,) = generate(llm, token_prompts([[500] * 1023]), max_tokens=5, ignore_eos=True)
    assert len(tokens(output)) == 1 + TOKENS_PAST_MAX_MODEL_LEN


@pytest.mark.parametrize("cached", [0, 1000])
def test_a_prompt_that_is_too_long_is_refused(llm: Any, cached: int) -> None:
    """Whether or not its beginning is in the prefix cache; and the engine goes on."""
    too_long = [501 if cached else 500] * 1025
    (before,) = generate(llm, PROMPTS[:1], max_tokens=4)
    if cached:
        generate(llm, token_prompts([too_long[:cached]]), max_tokens=1)
    refusal = ""
    try:
        (output,) = generate(llm, token_prompts([too_long]), ignore_eos=True)
    except ValueError as error:
        refusal = str(error)
    if refusal:
        assert "longer than the maximum model length of 1024" in refusal
    else:  # V0 gives a warning, and no token, or one if it did not see it at once
        assert len(tokens(output)) <= min(cached, 1)
        assert output.outputs[0].finish_reason == "length"
    (after,) = generate(llm, PROMPTS[:1], max_tokens=4)
    assert tokens(after) == tokens(before)


def beam_prompt(prompt: list[int]) -> Any:
    """0.6.6.post1 takes bare token ids here, later releases a prompt as everywhere."""
    import inspect

    from vllm import LLM

    annotation = str(inspect.signature(LLM.beam_search).parameters["prompts"].annotation)
    return prompt if "List[int]" in annotation else token_prompts([prompt])[0]


@pytest.mark.parametrize("method", ["start_profile", "stop_profile"])
def test_a_profile_is_refused_and_the_engine_goes_on(llm: Any, method: str) -> None:
    with pytest.raises(Exception, match="profiling through vLLM"):
        getattr(llm, method)()
    assert generate(llm, PROMPTS[:1], max_tokens=3)
