"""A real server, started by `vllm serve` and driven by the openai client."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from tests.e2e.serving import Server, executable

pytestmark = pytest.mark.slow

MODEL = "smollm2"
QUESTION = [{"role": "user", "content": "What is the capital of France?"}]
STREAMS = 32
BLOCKS = 256
"""Of the KV cache: few, so that all of them have been written before memory is looked at."""


@pytest.fixture(scope="module")
def server(demo_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(
        [executable("vllm"), "serve", str(demo_model), "--served-model-name", MODEL, "--max-model-len", "1024",
         "--max-num-seqs", str(STREAMS), "--num-gpu-blocks-override", str(BLOCKS), "--enable-auto-tool-choice", "--tool-call-parser", "pythonic"],
        tmp_path_factory.mktemp("server") / "log",
    )  # fmt: skip
    try:
        server.wait_until_ready()
        yield server
    finally:
        server.kill()


@pytest.fixture(scope="module")
def client(server: Server) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", timeout=120, max_retries=0)


def chat(client: openai.OpenAI, **options: Any) -> Any:
    return client.chat.completions.create(**{"model": MODEL, "messages": QUESTION, "temperature": 0, **options})


def test_it_answers_a_question(client: openai.OpenAI) -> None:
    answer = chat(client)
    assert answer.choices[0].message.content == "The capital of France is Paris."
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.completion_tokens == 8


def test_a_stream_brings_the_same_piece_by_piece(client: openai.OpenAI) -> None:
    pieces = [chunk.choices[0].delta.content or "" for chunk in chat(client, stream=True)]
    assert "".join(pieces) == "The capital of France is Paris."
    assert len([piece for piece in pieces if piece]) > 4


def test_logprobs_come_with_an_answer(client: openai.OpenAI) -> None:
    entries = chat(client, logprobs=True, top_logprobs=3).choices[0].logprobs.content
    for entry in entries:
        assert entry.logprob == max(top.logprob for top in entry.top_logprobs)
        assert len(entry.top_logprobs) == 3


def test_an_answer_obeys_a_json_schema(client: openai.OpenAI) -> None:
    schema = {
        "type": "object",
        "properties": {"city": {"enum": ["Paris", "Rome"]}, "inhabitants": {"type": "integer"}},
        "required": ["city", "inhabitants"],
        "additionalProperties": False,
    }
    answer = chat(
        client, max_tokens=60, response_format={"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
    )
    value = json.loads(answer.choices[0].message.content)
    assert value["city"] in ("Paris", "Rome")
    assert isinstance(value["inhabitants"], int)


def test_an_answer_obeys_a_choice_and_a_regex(client: openai.OpenAI) -> None:
    assert chat(client, extra_body={"guided_choice": ["Rome", "Oslo"]}).choices[0].message.content in ("Rome", "Oslo")
    number = chat(client, extra_body={"guided_regex": r"\d{3}-\d{2}"}).choices[0].message.content
    assert len(number) == 6
    assert number[3] == "-"


def test_a_tool_is_called(client: openai.OpenAI) -> None:
    parameters = {
        "type": "object",
        "properties": {"city": {"enum": ["Paris", "Rome"]}},
        "required": ["city"],
        "additionalProperties": False,
    }
    tool = {"type": "function", "function": {"name": "weather", "parameters": parameters}}
    answer = chat(
        client, tools=[tool], tool_choice={"type": "function", "function": {"name": "weather"}}, max_tokens=60
    )
    call = answer.choices[0].message.tool_calls[0].function
    assert call.name == "weather"
    assert set(json.loads(call.arguments)) == {"city"}


def test_tokens_go_there_and_back(server: Server) -> None:
    there = httpx.post(f"{server.url}/tokenize", json={"model": MODEL, "prompt": "Hello, world"}, timeout=30).json()
    assert there["max_model_len"] == 1024
    back = httpx.post(f"{server.url}/detokenize", json={"model": MODEL, "tokens": there["tokens"]}, timeout=30).json()
    assert back["prompt"] == "Hello, world"


@pytest.mark.parametrize(
    ("options", "status", "said"),
    [
        ({"messages": [{"role": "user", "content": "word " * 2000}]}, 400, "maximum context length is 1024 tokens"),
        ({"max_tokens": 5000}, 400, "5000"),
        ({"temperature": -1}, 400, "temperature"),
        ({"extra_body": {"guided_regex": "("}}, 400, "regex"),
        ({"model": "another"}, 404, "`another` does not exist"),
    ],
    ids=["prompt too long", "too many tokens", "negative temperature", "broken regex", "unknown model"],
)
def test_a_bad_request_gets_a_proper_error(
    client: openai.OpenAI, options: dict[str, Any], status: int, said: str
) -> None:
    with pytest.raises(openai.APIStatusError, match=said) as caught:
        chat(client, **options)
    assert caught.value.status_code == status


def test_many_streams_some_of_them_dropped_leave_no_trace(server: Server, client: openai.OpenAI) -> None:
    """A quarter of the clients hang up midway. The others get what they get alone, and every KV block comes back."""
    prompts = [f"Item {i}: tell me something about the number {i * 7}." for i in range(STREAMS)]
    sample = [1, 10, 31]
    before = blocks_at_rest(server, client)
    alone = {i: complete(client, prompts[i]) for i in sample}

    async def one(client: openai.AsyncOpenAI, i: int) -> str:
        text = ""
        stream = await client.completions.create(
            model=MODEL, prompt=prompts[i], temperature=0, max_tokens=40, stream=True, extra_body={"ignore_eos": True}
        )
        async for chunk in stream:
            text += chunk.choices[0].text
            if i % 4 == 0 and len(text) > 10:
                await stream.close()
                break
        return text

    async def all_of_them() -> list[str]:
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", timeout=180, max_retries=0) as many:
            return await asyncio.gather(*(one(many, i) for i in range(STREAMS)))

    texts = asyncio.run(all_of_them())
    for i in sample:
        assert texts[i] == alone[i]
    assert all(len(texts[i]) < len(texts[1]) * 2 for i in range(0, STREAMS, 4))
    assert blocks_at_rest(server, client) == before == 1


def complete(client: openai.OpenAI, prompt: str) -> str:
    answer = client.completions.create(
        model=MODEL, prompt=prompt, temperature=0, max_tokens=40, extra_body={"ignore_eos": True}
    )
    return answer.choices[0].text


def blocks_at_rest(server: Server, client: openai.OpenAI) -> float:
    """KV blocks in use when no request is: the one that vLLM keeps to itself.

    vLLM writes its gauges in a step and hears of a client that has gone a little later, so short requests bring them up to date.
    """
    for _ in range(20):
        client.completions.create(model=MODEL, prompt="x", max_tokens=1)
        if not server.gauge("vllm:num_requests_running") + server.gauge("vllm:num_requests_waiting"):
            break
        time.sleep(0.2)
    return server.gauge("vllm:gpu_cache_usage_perc") * BLOCKS


def test_memory_stays_flat_over_500_requests(server: Server) -> None:
    async def requests(count: int) -> None:
        turn = asyncio.Semaphore(16)
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", timeout=180, max_retries=0) as many:

            async def one(i: int) -> None:
                async with turn:
                    await many.completions.create(
                        model=MODEL, prompt=f"{i} " * (i % 8 + 1), max_tokens=2, temperature=i % 2
                    )

            await asyncio.gather(*(one(i) for i in range(count)))

    def held() -> float:
        return sum(process.memory_info().rss for process in server.processes()) / 2**20

    # First, what is only taken once: KV blocks as they are written, caches of the tokenizer, thread stacks.
    asyncio.run(requests(100))
    before = held()
    asyncio.run(requests(500))
    assert held() - before < 30


def test_vllms_own_benchmark_runs_against_it(server: Server, demo_model: Path) -> None:
    done = subprocess.run(
        [executable("vllm"), "bench", "serve", "--model", MODEL, "--tokenizer", str(demo_model), "--port", str(server.port),
         "--host", "127.0.0.1", "--dataset-name", "random", "--random-input-len", "16", "--random-output-len", "4", "--num-prompts", "4"],
        capture_output=True, text=True, timeout=180,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Successful requests:                     4" in done.stdout


def test_nothing_is_left_after_sigterm(server: Server) -> None:
    """The last test here: it ends the server."""
    assert len(server.processes()) > 1
    logged = len(server.log())
    server.process.send_signal(signal.SIGTERM)
    server.process.wait(30)
    deadline = time.monotonic() + 10
    while server.processes() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert [" ".join(process.cmdline()) for process in server.processes()] == []
    assert "Traceback" not in server.log()[logged:]
