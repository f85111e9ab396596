"""Servers of vLLM 0.6.6 as users start them: answers, streams, aborts, ends."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from tests.serving import Server, executable

pytestmark = pytest.mark.slow

MODEL = "smollm2"
ANSWER = "The capital of France is Paris."
OPTIONS = ["--served-model-name", MODEL, "--max-model-len", "512", "--max-num-seqs", "16"]
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"enum": ["Paris", "Rome"]}}, "required": ["city"]},
    },
}


def serving(command: list[str], log: Path) -> Iterator[Server]:
    server = Server(command, log)
    try:
        server.wait_until_ready()
        yield server
    finally:
        server.kill()


@pytest.fixture(scope="module")
def server(demo_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Plain `vllm serve`, whose engine runs in a process of its own."""
    options = [*OPTIONS, "--enable-auto-tool-choice", "--tool-call-parser", "pythonic"]
    yield from serving([executable("vllm"), "serve", str(demo_model), *options], tmp_path_factory.mktemp("s") / "log")


@pytest.fixture(scope="module")
def client(server: Server) -> openai.OpenAI:
    return connect(server)


def connect(server: Server) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", timeout=120, max_retries=0)


def chat(client: openai.OpenAI, **options: Any) -> Any:
    messages = [{"role": "user", "content": "What is the capital of France?"}]
    return client.chat.completions.create(**{"model": MODEL, "messages": messages, "temperature": 0, **options})


def stop(server: Server) -> None:
    server.process.send_signal(signal.SIGTERM)
    server.process.wait(60)
    deadline = time.monotonic() + 10
    while server.processes() and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not server.processes(), server.log()


def test_it_answers_and_streams(client: openai.OpenAI) -> None:
    assert chat(client).choices[0].message.content == ANSWER
    pieces = [chunk.choices[0].delta.content or "" for chunk in chat(client, stream=True)]
    assert "".join(pieces) == ANSWER
    assert len([piece for piece in pieces if piece]) > 4


def test_logprobs_and_echo(client: openai.OpenAI) -> None:
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
        client, tools=[TOOL], tool_choice={"type": "function", "function": {"name": "weather"}}, max_tokens=40
    )
    (call,) = answer.choices[0].message.tool_calls
    assert call.function.name == "weather"
    assert json.loads(call.function.arguments)["city"] in ("Paris", "Rome")


def test_a_request_may_offer_tools_and_get_words(client: openai.OpenAI) -> None:
    answer = chat(client, tools=[TOOL], tool_choice="auto", max_tokens=40)
    assert answer.choices[0].message.content or answer.choices[0].message.tool_calls


def test_a_stream_that_is_closed_frees_its_blocks(server: Server, client: openai.OpenAI) -> None:
    with client.completions.create(
        model=MODEL, prompt="A long story: ", max_tokens=450, stream=True, extra_body={"ignore_eos": True}
    ) as stream:
        for _ in range(4):
            next(stream)
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and "Aborted request" not in server.log():
        time.sleep(0.2)
    assert "Aborted request" in server.log()
    assert chat(client).choices[0].message.content == ANSWER
    assert server_gauge(server, "vllm:num_requests_running") == 0
    assert server_gauge(server, "vllm:gpu_cache_usage_perc") == 0


def server_gauge(server: Server, name: str) -> float:
    # The engine reports when it steps and every ten seconds.
    deadline = time.monotonic() + 15
    while server.gauge(name) and time.monotonic() < deadline:
        time.sleep(0.5)
    return server.gauge(name)


def test_sigterm_ends_all_processes(server: Server) -> None:
    """Comes last: it is the module's server that is ended."""
    assert len(server.processes()) > 1
    stop(server)


@pytest.mark.parametrize("how", ["module, engine in the same process", "vllm-mindspore serve"])
def test_other_ways_to_start_a_server(demo_model: Path, tmp_path: Path, how: str) -> None:
    module = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(demo_model)]
    command = {
        "module, engine in the same process": [*module, "--disable-frontend-multiprocessing"],
        "vllm-mindspore serve": [executable("vllm-mindspore"), "serve", str(demo_model)],
    }[how]
    for server in serving([*command, *OPTIONS], tmp_path / "log"):
        assert chat(connect(server)).choices[0].message.content == ANSWER
        httpx.get(f"{server.url}/metrics", timeout=10, follow_redirects=True).raise_for_status()
        stop(server)


@pytest.mark.parametrize(
    ("program", "arguments", "said"),
    [
        ("vllm", ["--enable-lora"], "StartupRefused: vllm-mindspore does not support LoRA yet: remove --enable-lora."),
        ("vllm-mindspore", ["--enable-lora"], "serve: vllm-mindspore does not support LoRA yet: remove --enable-lora."),
        ("vllm", ["--num-gpu-blocks-override", "10000000"], "so lower --num-gpu-blocks-override."),
    ],
    ids=["vllm serve", "vllm-mindspore serve", "found by the engine"],
)
def test_a_refusal_ends_the_server_and_its_engine(
    demo_model: Path, program: str, arguments: list[str], said: str
) -> None:
    """vLLM starts its engine's process before it looks at the options, and waits for it."""
    done = subprocess.run(
        [executable(program), "serve", str(demo_model), *OPTIONS, *arguments],
        capture_output=True, text=True, timeout=150,
    )  # fmt: skip
    assert done.returncode == 1
    lines = (done.stdout + done.stderr).splitlines()
    assert [line for line in lines if line.endswith(said)], done.stderr
    if program == "vllm-mindspore":
        assert lines[-1].endswith(said)
        assert "Traceback" not in done.stderr
