"""What Python does in a step of the adapter, for steps that vLLM's own scheduler makes, with a network that does nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.checkpoints import SMALL, make_tokenizer
from tests.conftest import ROOT
from tests.unit.budget.budgets import BUDGET, Cost, allocations, counted
from vllm_mindspore.matrix import row_for_installed_vllm

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(row_for_installed_vllm().adapter != "v0_9_1", reason="the budget is of the adapter v0_9_1"),
]

SEQS, PROMPT, CHUNK = 32, 40, 512


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """An engine in this process, with a worker of the bench's."""
    from transformers import LlamaConfig

    folder = tmp_path_factory.mktemp("config")
    LlamaConfig(
        **{**SMALL, "max_position_embeddings": 2048}, torch_dtype="bfloat16", architectures=["LlamaForCausalLM"]
    ).save_pretrained(folder)
    make_tokenizer(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
        patch.setenv("VLLM_USE_V1", "1")
        patch.syspath_prepend(ROOT / "ci/bench")
        from vllm import EngineArgs
        from vllm.v1.engine.llm_engine import LLMEngine

        yield LLMEngine.from_engine_args(
            EngineArgs(
                model=str(folder), worker_cls="bench_workers.NullWorker", dtype="bfloat16", max_model_len=2048,
                max_num_batched_tokens=CHUNK, max_num_seqs=SEQS, enable_prefix_caching=False, disable_log_stats=True,
            )
        )  # fmt: skip


def steps(engine: Any, how: Any, requests: int, prompt: int, tokens: int) -> list[tuple[dict[str, int], Any]]:
    """Run requests to their end; for each step, how many tokens each request got and what `how` found."""
    from vllm import SamplingParams

    from vllm_mindspore.compat.common.v1.model_runner import V1ModelRunner

    execute, found = V1ModelRunner.execute_model, []

    def watched(runner: V1ModelRunner, scheduled: Any) -> Any:
        with how() as cost:
            output = execute(runner, scheduled)
        found.append((dict(scheduled.num_scheduled_tokens), cost))
        return output

    params = SamplingParams(temperature=0, max_tokens=tokens, ignore_eos=True, detokenize=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(V1ModelRunner, "execute_model", watched)
        for i in range(requests):
            engine.add_request(str(i), {"prompt_token_ids": [1 + i] * prompt}, params)
        while engine.has_unfinished_requests():
            engine.step()
    return found


def decoding(engine: Any, how: Any, requests: int) -> list[Any]:
    """What was found in the steps in which each request gets its next token; the prompts lie in blocks that hold those as well."""
    found = steps(engine, how, requests, PROMPT, 8)
    return [cost for scheduled, cost in found if list(scheduled.values()) == [1] * requests][1:-1]


@pytest.mark.parametrize("what", ["calls", "instructions"])
def test_a_decoding_request_costs_no_more_python_than_it_did(engine: Any, what: str) -> None:
    budget = BUDGET["adapter"]
    one, many = (min(getattr(cost, what) for cost in decoding(engine, counted, requests)) for requests in (1, SEQS))
    assert 0 < one <= budget[what]
    assert (many - one) / (SEQS - 1) <= budget[f"{what}_per_request"]


def test_the_tokens_of_a_prompt_cost_python_nothing(engine: Any) -> None:
    """Of a prompt in three chunks the middle one is looked at: it is neither the first nor the one that ends in a token."""

    def middle(prompt: int) -> Cost:
        chunks = [cost for scheduled, cost in steps(engine, counted, 1, prompt, 1) if scheduled.get("0", 0) > 1]
        assert len(chunks) == 3
        return chunks[1]

    large = middle(2 * CHUNK + 8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine.engine_core.engine_core.scheduler, "max_num_scheduled_tokens", CHUNK // 8)
        small = middle(2 * CHUNK // 8 + 8)
    assert large == small


@pytest.mark.parametrize("requests", [1, SEQS])
def test_a_step_allocates_no_more_than_it_did(engine: Any, requests: int) -> None:
    found = decoding(engine, allocations, requests)
    budget = BUDGET["adapter"]["bytes"] + requests * BUDGET["adapter"]["bytes_per_request"]
    assert 0 < min(allocated.peak for allocated in found) <= budget
