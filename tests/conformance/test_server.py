"""A real server, started by `vllm serve` and driven by the openai client."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from tests.serving import ANSWER, MODEL, Server, chat, connect, connect_async, serving, vllm_serve

pytestmark = pytest.mark.slow

STREAMS = 16
BLOCKS = 256
CITY = {
    "type": "object",
    "properties": {"city": {"enum": ["Paris", "Rome"]}},
    "required": ["city"],
    "additionalProperties": False,
}
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": CITY}}


@pytest.fixture(scope="module")
def server(demo_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    limits = ["--max-model-len", "1024", "--max-num-seqs", str(STREAMS), "--num-gpu-blocks-override", str(BLOCKS)]
    tools = ["--enable-auto-tool-choice", "--tool-call-parser", "pythonic"]
    with serving([*vllm_serve(demo_model), *limits, *tools], tmp_path_factory.mktemp("server") / "log") as server:
        yield server


@pytest.fixture(scope="module")
def client(server: Server) -> openai.OpenAI:
    return connect(server)


def test_it_answers_a_question(client: openai.OpenAI) -> None:
    answer = chat(client)
    assert answer.choices[0].message.content == ANSWER
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.completion_tokens == 8


def test_a_stream_brings_the_same_piece_by_piece(client: openai.OpenAI) -> None:
    pieces = [chunk.choices[0].delta.content or "" for chunk in chat(client, stream=True)]
    assert "".join(pieces) == ANSWER
    assert len([piece for piece in pieces if piece]) > 4


def test_logprobs_come_with_an_answer(client: openai.OpenAI) -> None:
    entries = chat(client, logprobs=True, top_logprobs=3).choices[0].logprobs.content
    for entry in entries:
        assert entry.logprob == max(top.logprob for top in entry.top_logprobs)
        assert len(entry.top_logprobs) == 3


def test_logprobs_come_with_a_prompt_that_is_echoed(client: openai.OpenAI) -> None:
    completion = client.completions.create(
        model=MODEL, prompt="one two three", max_tokens=3, temperature=0, logprobs=2, echo=True
    )
    logprobs = completion.choices[0].logprobs
    assert completion.choices[0].text.startswith("one two three")
    assert logprobs.token_logprobs[0] is None
    assert len(logprobs.tokens) == 6
    assert all(value <= 0 for value in logprobs.token_logprobs[1:])


def test_a_named_tool_is_called_with_arguments_of_its_schema(client: openai.OpenAI) -> None:
    answer = chat(
        client, tools=[WEATHER], tool_choice={"type": "function", "function": {"name": "weather"}}, max_tokens=40
    )
    (call,) = answer.choices[0].message.tool_calls
    assert call.function.name == "weather"
    arguments = json.loads(call.function.arguments)
    assert set(arguments) == {"city"}
    assert arguments["city"] in ("Paris", "Rome")


def test_a_request_may_offer_tools_and_get_words(client: openai.OpenAI) -> None:
    answer = chat(client, tools=[WEATHER], tool_choice="auto", max_tokens=40)
    assert answer.choices[0].message.content or answer.choices[0].message.tool_calls


def test_an_answer_obeys_a_json_schema(client: openai.OpenAI) -> None:
    schema = {
        "type": "object",
        "properties": {"city": {"enum": ["Paris", "Rome"]}, "capital": {"type": "boolean"}},
        "required": ["city", "capital"],
        "additionalProperties": False,
    }
    answer = chat(
        client, max_tokens=60, response_format={"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
    )
    value = json.loads(answer.choices[0].message.content)
    assert value["city"] in ("Paris", "Rome")
    assert isinstance(value["capital"], bool)


def test_an_answer_obeys_a_choice_and_a_regex(client: openai.OpenAI) -> None:
    assert chat(client, extra_body={"guided_choice": ["Rome", "Oslo"]}).choices[0].message.content in ("Rome", "Oslo")
    number = chat(client, extra_body={"guided_regex": r"\d{3}-\d{2}"}).choices[0].message.content
    assert len(number) == 6
    assert number[3] == "-"


def test_a_seed_gives_the_same_answer_again(client: openai.OpenAI) -> None:
    def ask(seed: int) -> list[str]:
        answer = chat(client, temperature=1.2, seed=seed, n=2, max_tokens=16)
        return [choice.message.content for choice in answer.choices]

    assert ask(1) == ask(1) != ask(2)


def test_a_prompt_that_is_too_long_gets_a_proper_error_and_the_next_one_an_answer(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="maximum context length is 1024 tokens"):
        chat(client, messages=[{"role": "user", "content": "word " * 2000}])
    assert "Paris" in chat(client).choices[0].message.content


def test_many_streams_some_of_them_dropped_leave_no_trace(server: Server, client: openai.OpenAI) -> None:
    """A quarter of the clients hang up midway. The others get what they get alone, and every KV block comes back."""
    prompts = [f"Item {i}: tell me something about the number {i * 7}." for i in range(STREAMS)]
    sample = [1, 7, 15]
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
        async with connect_async(server) as many:
            return await asyncio.gather(*(one(many, i) for i in range(STREAMS)))

    texts = asyncio.run(all_of_them())
    for i in sample:
        assert texts[i] == alone[i]
    assert all(len(texts[i]) < len(texts[1]) * 2 for i in range(0, STREAMS, 4))
    assert blocks_at_rest(server, client) == before <= 1


def complete(client: openai.OpenAI, prompt: str) -> str:
    answer = client.completions.create(
        model=MODEL, prompt=prompt, temperature=0, max_tokens=40, extra_body={"ignore_eos": True}
    )
    return answer.choices[0].text


def blocks_at_rest(server: Server, client: openai.OpenAI) -> float:
    """KV blocks in use when no request is: at most one that vLLM keeps to itself.

    vLLM writes its gauges in a step and hears of a client that has gone a little later, so short requests bring them up to date.
    """
    for _ in range(20):
        client.completions.create(model=MODEL, prompt="x", max_tokens=1)
        if not server.gauge("vllm:num_requests_running") + server.gauge("vllm:num_requests_waiting"):
            break
        time.sleep(0.2)
    return server.gauge("vllm:gpu_cache_usage_perc") * BLOCKS


def test_nothing_is_left_after_sigterm(server: Server) -> None:
    """The last test here: it ends the server."""
    assert len(server.processes()) > 1
    assert server.terminate() == []
