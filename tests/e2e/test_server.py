"""A real server, started by `vllm serve`: what tests/conformance/test_server.py does not ask of every engine."""

from __future__ import annotations

import asyncio
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from tests.serving import MODEL, Server, chat, connect, connect_async, executable, serving, vllm_serve

pytestmark = pytest.mark.slow

STREAMS = 32
BLOCKS = 256
"""Of the KV cache: few, so that all of them have been written before memory is looked at."""


@pytest.fixture(scope="module")
def server(demo_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    limits = ["--max-model-len", "1024", "--max-num-seqs", str(STREAMS), "--num-gpu-blocks-override", str(BLOCKS)]
    with serving([*vllm_serve(demo_model), *limits], tmp_path_factory.mktemp("server") / "log") as server:
        yield server


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
def test_a_bad_request_gets_a_proper_error(server: Server, options: dict[str, Any], status: int, said: str) -> None:
    with pytest.raises(openai.APIStatusError, match=said) as caught:
        chat(connect(server), **options)
    assert caught.value.status_code == status


def test_memory_stays_flat_over_500_requests(server: Server) -> None:
    async def requests(numbers: range) -> None:
        turn = asyncio.Semaphore(16)
        async with connect_async(server) as many:

            async def one(i: int) -> None:
                async with turn:
                    await many.completions.create(
                        model=MODEL, prompt=f"{i} " * (i % 8 + 1), max_tokens=2, temperature=i % 2
                    )

            await asyncio.gather(*(one(i) for i in numbers))

    def held() -> float:
        return sum(process.memory_info().rss for process in server.processes()) / 2**20

    # First, what is only taken once: KV blocks and activations as they are written, caches of the tokenizer, thread stacks.
    asyncio.run(requests(range(300, 500)))
    before = held()
    asyncio.run(requests(range(500)))
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
    assert server.terminate() == []
    assert "Traceback" not in server.log()[logged:]


def test_nobody_answers_at_the_port_once_the_front_end_is_killed(demo_model: Path, tmp_path: Path) -> None:
    """vLLM's engine goes on then; clients shall be refused, and the next server shall not share the port with it."""
    with serving([*vllm_serve(demo_model), "--max-model-len", "256"], tmp_path / "log") as server:
        server.process.kill()
        server.process.wait()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", server.port), timeout=5)
