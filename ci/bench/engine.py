"""An engine of vLLM that waits for work: one JSON object a line comes in, one a line, after `MARK`, goes out.

Runs in the environment that is measured, ours or a peer's, so it knows nothing but vLLM. `python engine.py OPTIONS` takes the arguments of
`vllm.LLM` as JSON.
"""

from __future__ import annotations

import json
import random
import sys
import time
from typing import Any

MARK = "bench:"


def prompts(seed: int, count: int, length: int) -> list[dict[str, list[int]]]:
    """The same for the same seed; for another one, nothing that a prefix cache could know."""
    draws = [random.Random(f"{seed}/{i}") for i in range(count)]
    return [{"prompt_token_ids": [draw.randrange(100, 40000) for _ in range(length)]} for draw in draws]


def generate(llm: Any, seed: int, count: int, length: int, tokens: int, sampling: dict[str, float]) -> float:
    """Seconds for `count` prompts of `length` tokens and `tokens` new ones each, greedy unless `sampling` says otherwise."""
    from vllm import SamplingParams

    params = SamplingParams(**{"temperature": 0, **sampling}, max_tokens=tokens, ignore_eos=True)
    asked = prompts(seed, count, length)
    started = time.perf_counter()
    outputs = llm.generate(asked, params, use_tqdm=False)
    seconds = time.perf_counter() - started
    if any(len(output.outputs[0].token_ids) != tokens for output in outputs):
        sys.exit(f"an answer has not the {tokens} tokens that were asked for")
    return seconds


def main(options: str) -> None:
    from vllm import LLM

    llm = LLM(**json.loads(options))
    print(MARK, "null", flush=True)
    for line in sys.stdin:
        work = json.loads(line)
        answer: Any = llm.collective_rpc(work["ask"])[0] if "ask" in work else generate(llm, **work)
        print(MARK, json.dumps(answer), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
