"""Start, question and stop an engine of the installed vLLM, V0 or V1.

The one place of the tests that knows where these differ. `VLLM_USE_V1`, as it is when the tests start, chooses the engine.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from vllm_mindspore.matrix import row_for_installed_vllm, rows_for_installed_vllm

ROW = row_for_installed_vllm()
"""The engine under test."""
IS_V1 = ROW.engine == "V1"
TOKENS_PAST_MAX_MODEL_LEN = 0 if ROW.adapter in ("v0_8_3_v1", "v0_9_1", "v0_9_1_v0") else 1
"""Before 0.9, V0 stops a sequence once it has one token more than the model may see, which is never read again."""


def environment(**more: str) -> dict[str, str]:
    """For a process that is to run this engine and no other: nothing of vLLM's is set but a KV cache of 1 GiB and the engine, if there are two."""
    cleared = {name: value for name, value in os.environ.items() if not name.startswith("VLLM_")}
    if len(rows_for_installed_vllm()) > 1:
        cleared["VLLM_USE_V1"] = "1" if IS_V1 else "0"
    return {**cleared, "VLLM_CPU_KVCACHE_SPACE": "1", **more}


@contextlib.contextmanager
def _in_environment() -> Iterator[None]:
    """The same for this process. vLLM and our platform write into it, so it is made anew for each engine and put back."""
    before = dict(os.environ)
    wanted = environment()
    with pytest.MonkeyPatch.context() as patch:
        for name in set(before) - set(wanted):
            patch.delenv(name)
        for name, value in wanted.items():
            patch.setenv(name, value)
        yield
    for name in set(os.environ) - set(before):
        del os.environ[name]


@contextlib.contextmanager
def started(model: Path, **options: Any) -> Iterator[Any]:
    """A `vllm.LLM`; its engine runs in a process of its own on V1 and in this one on V0."""
    with _in_environment():
        from vllm import LLM

        gc.collect()  # what engines before left in cycles
        llm = LLM(str(model), **options)
        try:
            yield llm
        finally:
            if IS_V1:
                llm.llm_engine.engine_core.shutdown()
            else:
                llm.llm_engine.model_executor.shutdown()
            del llm
            gc.collect()


@contextlib.asynccontextmanager
async def started_async(model: Path, **options: Any) -> AsyncIterator[Any]:
    """The asynchronous engine: `generate(prompt, params, request_id)`."""
    with _in_environment():
        from vllm import AsyncEngineArgs, AsyncLLMEngine

        gc.collect()
        engine = AsyncLLMEngine.from_engine_args(AsyncEngineArgs(model=str(model), **options))
        try:
            yield engine
        finally:
            if IS_V1:
                engine.shutdown()
            else:
                engine.shutdown_background_loop()
                await asyncio.sleep(0)  # for the loop to see that it was cancelled
                engine.engine.model_executor.shutdown()
            del engine
            gc.collect()


def counted(name: str) -> float:
    """The value of one of vLLM's metrics in this process, which only asynchronous engines keep in every release."""
    from prometheus_client import REGISTRY

    return sum(
        sample.value
        for metric in REGISTRY.collect()
        for sample in metric.samples
        if sample.name in (name, f"{name}_total")
    )


def generate(llm: Any, prompts: Any, **params: Any) -> list[Any]:
    """`LLM.generate` with the same parameters for all prompts, greedy unless told otherwise."""
    from vllm import SamplingParams

    settings = SamplingParams(**{"temperature": 0.0, "max_tokens": 24, **params})
    outputs: list[Any] = llm.generate(prompts, settings, use_tqdm=False)
    return outputs


class PeakMemory:
    growth = 0
    """Bytes that this process and its children had more in memory than at the beginning, at most."""


@contextlib.contextmanager
def peak_memory() -> Iterator[PeakMemory]:
    """Watch memory until the block ends."""
    import psutil

    held, ended = PeakMemory(), threading.Event()
    processes = [psutil.Process(), *psutil.Process().children(recursive=True)]

    def now() -> int:
        return sum(process.memory_info().rss for process in processes if process.is_running())

    before = now()

    def watch() -> None:
        while not ended.wait(0.002):
            held.growth = max(held.growth, now() - before)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield held
    finally:
        ended.set()
        watcher.join()


def answer(llm: Any, question: str) -> str:
    """Sixteen tokens, greedy, through the model's chat template."""
    from vllm import SamplingParams

    messages = [{"role": "user", "content": question}]
    (output,) = llm.chat(messages, SamplingParams(temperature=0.0, max_tokens=16), use_tqdm=False)
    text: str = output.outputs[0].text
    return text


def tokens(output: Any) -> list[int]:
    """Of a request's first answer."""
    return list(output.outputs[0].token_ids)


def token_prompts(prompts: Sequence[Sequence[int]]) -> list[dict[str, list[int]]]:
    """Prompts for `LLM.generate` that need no tokenizer."""
    return [{"prompt_token_ids": list(prompt)} for prompt in prompts]
