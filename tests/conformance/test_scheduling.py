"""Whatever the scheduler does to a request, its tokens are what they would be if it ran alone and unharmed."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.engines import IS_V1 as V1
from tests.engines import TOKENS_PAST_MAX_MODEL_LEN

pytestmark = pytest.mark.slow

VOCAB, MAX_LEN = 64, 64


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A config and a tokenizer of `VOCAB` words; there are no weights."""
    from tokenizers import Tokenizer, models
    from transformers import LlamaConfig, PreTrainedTokenizerFast

    path = tmp_path_factory.mktemp("remembering")
    words = Tokenizer(models.WordLevel({f"w{i}": i for i in range(VOCAB)}, unk_token="w0"))
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="w0").save_pretrained(path)
    config = LlamaConfig(
        vocab_size=VOCAB, hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=MAX_LEN, torch_dtype="float16", architectures=["LlamaForCausalLM"],
    )  # fmt: skip
    config.save_pretrained(path)
    assert json.loads((path / "config.json").read_text())["architectures"] == ["LlamaForCausalLM"]
    return path


BLOCKS = 22
LONGEST = MAX_LEN + TOKENS_PAST_MAX_MODEL_LEN
"""Tokens of a sequence, its last one included."""

SMALL = {"max_num_batched_tokens": 12, "enable_chunked_prefill": True}
"""A step in which prompts are cut into chunks all the time."""
SHAPES: dict[str, dict[str, Any]] = (
    {"chunks and prefix cache": {"max_num_batched_tokens": 12}}
    if V1
    else {
        "whole prompts": {},
        "synchronous output": {"disable_async_output_proc": True},
        "chunks and prefix cache": {**SMALL, "enable_prefix_caching": True},
        "prefix cache": {"enable_prefix_caching": True},
        "several steps at once": {"num_scheduler_steps": 3},
        "several steps at once, synchronous output": {"num_scheduler_steps": 3, "disable_async_output_proc": True},
        # Here vLLM ignores what a step could not compute at once, prompts and preempted requests.
        "several steps at once, chunks": {**SMALL, "max_num_batched_tokens": MAX_LEN, "num_scheduler_steps": 3},
        "swap": {"preemption_mode": "swap", "swap_space": 0.001},
    }
)


@pytest.fixture(scope="module", params=SHAPES.values(), ids=list(SHAPES))
def engine(checkpoint: Path, request: pytest.FixtureRequest) -> Iterator[Any]:
    """An engine in this process, so small that requests are preempted all the time."""
    with in_process(checkpoint, **request.param) as engine:
        yield engine


@contextmanager
def in_process(checkpoint: Path, **options: Any) -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
        from vllm import EngineArgs

        if V1:
            from vllm.v1.engine.llm_engine import LLMEngine
        else:
            from vllm import LLMEngine

        yield LLMEngine.from_engine_args(
            EngineArgs(
                model=str(checkpoint), worker_cls="tests.conformance.remembering.RememberingWorker", block_size=4,
                num_gpu_blocks_override=BLOCKS, max_num_seqs=5, max_model_len=MAX_LEN,
                disable_log_stats=True,  # vLLM's in-process engine asserts statistics of steps that had none
                **options,
            )
        )  # fmt: skip


@dataclass
class Asked:
    """A request of the test."""

    prompt: list[int]
    max_tokens: int
    arrives: int
    aborted: int | None
    kind: str
    seed: int
    produced: list[int] = field(default_factory=list)
    prompt_logprobs: list[Any] | None = None

    def params(self) -> Any:
        from vllm import SamplingParams

        special: dict[str, Any] = {
            "greedy": {},
            "seeded": {"temperature": 0.7, "seed": self.seed, "top_k": 20},
            "bias": {"logit_bias": {self.seed % VOCAB: 50.0}},
            "allowed": {"allowed_token_ids": [self.seed % VOCAB, (self.seed + 11) % VOCAB]},
            "repetition": {"repetition_penalty": 1.8},
            "prompt logprobs": {"prompt_logprobs": 2, "logprobs": 2},
        }[self.kind]
        return SamplingParams(
            **{"temperature": 0.0, **special}, max_tokens=self.max_tokens, ignore_eos=True, detokenize=False
        )

    def expected(self) -> list[int]:
        """What the parameters mean, computed plainly."""
        from tests.conformance.remembering import logits_after

        generator = torch.Generator().manual_seed(self.seed)
        tokens = list(self.prompt)
        while len(tokens) - len(self.prompt) < self.max_tokens and len(tokens) < LONGEST:
            logits = torch.from_numpy(logits_after(tokens))
            if self.kind == "seeded":
                logits = logits / 0.7
                logits[logits < logits.topk(20).values[-1]] = -math.inf
                dart = torch.rand((), dtype=torch.float64, generator=generator)
                choice = torch.searchsorted(logits.double().softmax(-1).cumsum(-1), dart, right=True)
            else:
                if self.kind == "bias":
                    logits[self.seed % VOCAB] += 50
                elif self.kind == "allowed":
                    allowed = [self.seed % VOCAB, (self.seed + 11) % VOCAB]
                    logits[[token for token in range(VOCAB) if token not in allowed]] = -math.inf
                elif self.kind == "repetition":
                    logits[list(set(tokens))] /= 1.8  # all logits are positive
                choice = logits.argmax()
            tokens.append(int(choice))
        return tokens[len(self.prompt) :]


KINDS = ["greedy", "greedy", "seeded", "bias", "allowed", "repetition", "prompt logprobs"]


@st.composite
def requests(draw: st.DrawFn) -> list[Asked]:
    shared = [draw(st.integers(1, 3)) for _ in range(12)]
    asked = []
    for _ in range(draw(st.integers(1, 9))):
        tail = draw(st.lists(st.integers(0, VOCAB - 1), min_size=1, max_size=30))
        prompt = (shared if draw(st.booleans()) else []) + tail
        arrives = draw(st.integers(0, 12))
        aborted = draw(st.none() | st.none() | st.integers(arrives, arrives + 12))
        kind = draw(st.sampled_from(KINDS))
        asked.append(Asked(prompt, draw(st.integers(1, 24)), arrives, aborted, kind, draw(st.integers(0, 999))))
    return asked


_serial = iter(range(1 << 30))
_unfinished: list[str] = []


def run(engine: Any, asked: list[Asked]) -> None:
    """Drive the engine until all requests are finished or aborted."""
    engine.abort_request(_unfinished)  # left over from an example that failed
    ids = {f"r{next(_serial)}": request for request in asked}
    _unfinished[:] = ids
    waiting, clock = dict(ids), 0
    while waiting or engine.has_unfinished_requests():
        for name in [name for name, request in waiting.items() if request.arrives <= clock]:
            request = waiting.pop(name)
            engine.add_request(name, {"prompt_token_ids": request.prompt}, request.params())
        engine.abort_request(
            [name for name, request in ids.items() if request.aborted == clock and name not in waiting]
        )
        for output in engine.step() if engine.has_unfinished_requests() else []:
            request = ids[output.request_id]
            request.produced = list(output.outputs[0].token_ids)
            request.prompt_logprobs = output.prompt_logprobs
        clock += 1
        assert clock < 2000, "the engine makes no progress"
    _unfinished.clear()


@settings(max_examples=60 if V1 else 15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(asked=requests())
def test_tokens_survive_chunks_preemption_prefix_hits_and_neighbours(engine: Any, asked: list[Asked]) -> None:
    run(engine, asked)
    for request in asked:
        expected = request.expected()
        if request.aborted is None:
            assert request.produced == expected, request
        else:
            assert request.produced == expected[: len(request.produced)], request
        if request.kind == "prompt logprobs" and request.aborted is None:
            check_prompt_logprobs(request)
    assert leaked_blocks(engine) == 0


def check_prompt_logprobs(request: Asked) -> None:
    from tests.conformance.remembering import logits_after

    assert request.prompt_logprobs is not None
    assert len(request.prompt_logprobs) == len(request.prompt)
    assert request.prompt_logprobs[0] is None
    for position, found in enumerate(request.prompt_logprobs[1:], 1):
        expected = torch.from_numpy(logits_after(request.prompt[:position])).log_softmax(-1).numpy()
        best = set(np.argsort(expected)[-2:].tolist())
        assert set(found) == best | {request.prompt[position]}
        for token, entry in found.items():
            assert entry.logprob == pytest.approx(expected[token], abs=1e-5)


def leaked_blocks(engine: Any) -> int:
    """KV blocks that no request has and that are not free."""
    if V1:
        pool = engine.engine_core.engine_core.scheduler.kv_cache_manager.block_pool
        return int(pool.num_gpu_blocks - 1 - pool.get_num_free_blocks())  # one is vLLM's null block
    return BLOCKS - int(engine.scheduler[0].block_manager.get_num_free_gpu_blocks())


def kept(engine: Any) -> set[str]:
    """Requests of which the adapter holds something."""
    core = engine.engine_core.engine_core if V1 else engine
    driver = core.model_executor.driver_worker
    runner = getattr(driver, "worker", driver).model_runner  # 0.6.6 has no wrapper around it
    if V1:
        return {*runner._batch.requests, *runner._prompt_logprobs._gathered}
    sampling = runner._sampling
    return {*sampling._generators, *sampling._draws, *sampling._prompt_logprobs_given}


def test_nothing_is_kept_of_requests_that_are_gone(engine: Any) -> None:
    """Or a server that runs for months fills up."""
    for kind in ("seeded", "prompt logprobs"):
        for aborted in (None, 1):  # in the middle of the prompt, where it comes in chunks
            run(engine, [Asked([3] * 30, 3, 0, aborted, kind, 5)])
    run(engine, [Asked([4, 5], 3, 0, None, "greedy", 0)])
    assert len(kept(engine)) <= 1  # vLLM tells with a step what has ended in the one before


def test_requests_were_really_preempted(engine: Any) -> None:
    """Or the test above shows less than it says."""
    crowd = [Asked([token] * 20, 40, 0, None, "greedy", 0) for token in range(5)]
    preempted = []
    with pytest.MonkeyPatch.context() as patch:
        if V1:
            manager = engine.engine_core.engine_core.scheduler.kv_cache_manager
            free = manager.free
            patch.setattr(manager, "free", lambda request: (preempted.append(not request.is_finished()), free(request)))
        else:
            scheduler = engine.scheduler[0]
            preempt = scheduler._preempt
            patch.setattr(scheduler, "_preempt", lambda *args: (preempted.append(True), preempt(*args))[1])
        run(engine, crowd)
    assert any(preempted)
    assert [request.produced for request in crowd] == [request.expected() for request in crowd]
    if not V1 and engine.scheduler_config.preemption_mode == "swap":
        driver = engine.model_executor.driver_worker
        worker = getattr(driver, "worker", driver)  # 0.6.6 has no wrapper around it
        assert worker.model_runner._runner.kv_cache.swapped > 0


@pytest.mark.skipif(V1, reason="vLLM's V1 has no swap space")
def test_prompts_let_in_while_others_are_swapped_out_do_not_exhaust_the_swap_space(checkpoint: Path) -> None:
    """Chunked prefill does that, so that more are swapped out in the end than may run."""
    with in_process(
        checkpoint, preemption_mode="swap", enable_chunked_prefill=True, max_num_batched_tokens=MAX_LEN
    ) as engine:
        crowd = [Asked([token] * 20, 40, 0, None, "greedy", 0) for token in range(40)]
        run(engine, crowd)
        assert [request.produced for request in crowd] == [request.expected() for request in crowd]


def test_a_cached_prefix_is_not_computed_again(engine: Any) -> None:
    from tests.conformance.remembering import RememberingRunner

    computed = []
    for _ in range(2):
        before = RememberingRunner.computed_tokens
        asked = Asked([50 + i % 3 for i in range(24)], 4, 0, None, "greedy", 0)
        run(engine, [asked])
        assert asked.produced == asked.expected()
        computed.append(RememberingRunner.computed_tokens - before)
    saved = computed[0] - computed[1]
    if V1 or engine.cache_config.enable_prefix_caching:
        assert saved >= 20  # all but the last of six blocks, whose last token has to be computed
    else:
        assert saved < 4  # steps that were planned at once may be run past the end
