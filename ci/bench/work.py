"""The work that is measured: a function for each kind, which yields a row of the table for each thing that it measures.

Sides take turns, so that what disturbs the machine disturbs all of them; a figure is the median over the rounds, a ratio the median of the ratios
round by round, and the limits are measured in every round as well.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from functools import partial
from typing import Any, Callable

from machine import busy
from network import Products
from rows import PEAK, READS, Bar, Row, against, ratio, with_limits
from servers import Server, peer_command, serve_command
from sides import LLAMA, OURS, PEER, THREADS, Engine, our_python
from turns import Bench

PROMPT, STEPS = 32, 64
SAMPLING = {"temperature": 0.8, "top_p": 0.95}
PREFILL_PROMPTS, PREFILL_LENGTH = 4, 1024
LONG_BATCH, LONG_CONTEXTS, LONG_STEPS = 8, (2048, 4096, 8192), 24
STREAMS, SERVED_IN, SERVED_OUT = 16, 128, 128


def decode(bench: Bench) -> Iterator[Row]:
    asked = {1: {LLAMA: 0.95, PEER: 3.0}, 8: {LLAMA: 1.5, PEER: 2.5}, 32: {LLAMA: 2.0, PEER: 2.5}}
    for batch, bars in asked.items():
        sides: dict[str, Callable[[], Any]] = {"limits": bench.measured_limits}
        for side in bench.vllms():
            engine = bench.short(side)
            sides[side] = partial(engine.decode_rate, batch, PROMPT, STEPS)
        if bench.llama:
            sides[LLAMA] = partial(bench.llama.decode, batch, PROMPT, STEPS)
        found, others = bench.take_turns(sides)
        figures = with_limits(found)
        step = bench.network.decode(batch, PROMPT + STEPS / 2)
        row = Row(
            f"decode, batch {batch}", "tokens/s", figures, against(figures, bars), {**step, "tokens": batch}, others
        )
        if batch == 1:
            at_limit = [reads * 1e9 / bench.network.weight_bytes for reads in figures[READS]]
            row.bars.insert(0, Bar("of the read bandwidth", 80.0, 100 * ratio(figures[OURS], at_limit), unit="%"))
        yield row


def sampled_decode(bench: Bench) -> Iterator[Row]:
    for batch in (1, 32):
        sides = {
            side: partial(bench.short(side).decode_rate, batch, PROMPT, STEPS, **SAMPLING) for side in bench.vllms()
        }
        found, others = bench.take_turns(sides)
        yield Row(f"decode, batch {batch}, sampled", "tokens/s", found, busy=others)


def int8_decode(bench: Bench) -> Iterator[Row]:
    quantized = bench.engine("int8", our_python(), max_model_len=2048, max_num_seqs=32, quantization="tpu_int8")
    ours = {OURS: bench.short(OURS), "int8": quantized}
    found, others = bench.take_turns(
        {name: partial(engine.decode_rate, 1, PROMPT, STEPS) for name, engine in ours.items()}
    )
    bars = [Bar("of the same with bfloat16 weights", 1.6, ratio(found["int8"], found[OURS]), unit="x")]
    yield Row("decode, batch 1, int8 weights", "tokens/s", {OURS: found["int8"]}, bars, busy=others)


def prefill(bench: Bench) -> Iterator[Row]:
    tokens = PREFILL_PROMPTS * PREFILL_LENGTH
    products = Products(bench.network, tokens, THREADS)
    sides: dict[str, Callable[[], Any]] = {"limits": bench.measured_limits, "products": products.flops_per_second}
    for side in bench.vllms():
        engine = bench.short(side)
        sides[side] = partial(engine.prefill_rate, PREFILL_PROMPTS, PREFILL_LENGTH)
    if bench.llama:
        sides[LLAMA] = partial(bench.llama.prefill, PREFILL_PROMPTS, PREFILL_LENGTH)
    found, others = bench.take_turns(sides)
    gigaflops = [flops / 1e9 for flops in found.pop("products")]
    figures = with_limits(found)
    bars = against(figures, {LLAMA: 1.3, PEER: 2.0})
    bars.append(
        Bar("of the peak, in matrix products of a layer", 65.0, 100 * ratio(gigaflops, figures[PEAK]), unit="%")
    )
    step = bench.network.prefill(PREFILL_PROMPTS, PREFILL_LENGTH)
    work = f"prefill, {PREFILL_PROMPTS} x {PREFILL_LENGTH}"
    yield Row(work, "tokens/s", figures, bars, {**step, "tokens": tokens}, others)


def long_context(bench: Bench) -> Iterator[Row]:
    engine = bench.engine(
        "long",
        our_python(),
        worker_cls="bench_workers.LongWorker",
        max_model_len=max(LONG_CONTEXTS),
        max_num_seqs=LONG_BATCH,
    )

    def rate(context: int) -> float:
        return LONG_BATCH / _parts_of_steps(engine, LONG_BATCH, context - LONG_STEPS, LONG_STEPS)[0]

    sides: dict[str, Callable[[], Any]] = {"limits": bench.measured_limits}
    for context in LONG_CONTEXTS:
        sides[str(context)] = partial(rate, context)
    found, others = bench.take_turns(sides)
    figures = with_limits(found)
    shortest, middle, longest = ([LONG_BATCH / rate for rate in figures[str(context)]] for context in LONG_CONTEXTS)
    more_bytes = bench.network.cache_bytes(LONG_BATCH * (LONG_CONTEXTS[-1] - LONG_CONTEXTS[0]))
    reads = [more_bytes / (b - a) / 1e9 for a, b in zip(shortest, longest)]
    slopes = [(c - b) / (LONG_CONTEXTS[2] - LONG_CONTEXTS[1]) / ((b - a) / (LONG_CONTEXTS[1] - LONG_CONTEXTS[0]))
              for a, b, c in zip(shortest, middle, longest)]  # fmt: skip
    for context in LONG_CONTEXTS:
        rates = {OURS: figures[str(context)], READS: figures[READS], PEAK: figures[PEAK]}
        amounts = bench.network.decode(LONG_BATCH, context - LONG_STEPS / 2)
        row = Row(
            f"decode, batch {LONG_BATCH}, {context} tokens of context",
            "tokens/s",
            rates,
            [],
            {**amounts, "tokens": LONG_BATCH},
            others,
        )
        if context == LONG_CONTEXTS[-1]:
            row.bars = [
                Bar("of the read bandwidth, in attention", 70.0, 100 * ratio(reads, figures[READS]), unit="%"),
                Bar(
                    "cost of a token of context beyond 4096, of that before",
                    1.15,
                    statistics.median(slopes),
                    at_most=True,
                    unit="x",
                ),
            ]
        yield row


def parts(bench: Bench) -> Iterator[Row]:
    """What we add to a step: ours, without its launches, without the same step of a null model.

    Of null models there are two: one that does nothing, and one that empties the caches as any model does, so that vLLM's code is as slow in it.
    """
    options = {"max_model_len": 2048, "max_num_seqs": 32}
    workers = {OURS: "TimedWorker", "null": "NullWorker", "reading": "ReadingWorker"}
    engines = {
        side: bench.engine(f"{side}, timed", our_python(), worker_cls=f"bench_workers.{worker}", **options)
        for side, worker in workers.items()
    }
    for batch, bar in ((1, 0.3), (32, 2.0)):
        sides = {side: partial(_parts_of_steps, engine, batch, PROMPT, STEPS + 1) for side, engine in engines.items()}
        found, others = bench.take_turns(sides)
        # Without what the network takes: launches, reads or, in the null model that does nothing, no time.
        steps = {side: [1e3 * (step - network) for step, _, network in times] for side, times in found.items()}
        workers = {side: [1e3 * (worker - network) for _, worker, network in times] for side, times in found.items()}
        figures = {
            "step": [1e3 * step for step, _, _ in found[OURS]],
            "launches": [1e3 * launches for _, _, launches in found[OURS]],
            "worker without launches": workers[OURS],
            "step of a null model": steps["null"],
            "worker of a null model": workers["null"],
            "step of a null model, without its reads": steps["reading"],
            "worker of a null model, without its reads": workers["reading"],
        }
        bars = []
        for side, what in (("null", "that does nothing"), ("reading", "that reads as much memory")):
            added = statistics.median(ours - null for ours, null in zip(steps[OURS], steps[side]))
            bars.append(Bar(f"beside kernels and a null model {what}", bar, added, at_most=True, unit="ms"))
        yield Row(f"parts of a step, batch {batch}", "ms", figures, bars, busy=others)


def _parts_of_steps(engine: Engine, batch: int, length: int, tokens: int) -> tuple[float, float, float]:
    """Medians over the steps in which each sequence gets a token: seconds from one step's begin to the next, in the worker, in launches."""
    engine.ask("taken_steps")
    engine.generate(batch, length, tokens)
    steps = engine.ask("taken_steps")
    pairs = [(a, b) for a, b in zip(steps, steps[1:]) if a[0] == b[0] == batch]
    return (
        statistics.median(b[1] - a[1] for a, b in pairs),
        statistics.median(a[3] - a[1] for a, _ in pairs),
        statistics.median(a[2] for a, _ in pairs),
    )


def serving(bench: Bench) -> Iterator[Row]:
    bench.stop()  # a server is not to share the memory with what waits
    commands = {OURS: serve_command(), **({PEER: peer_command(bench.peer)} if bench.peer else {})}
    servers: dict[str, Server] = {}
    try:
        for side, command in commands.items():
            servers[side] = Server(command, bench.model)
        found, others = bench.take_turns(
            {side: partial(server.measure, STREAMS, SERVED_IN, SERVED_OUT) for side, server in servers.items()}
        )
    finally:
        for server in servers.values():
            server.stop()
    asked = {
        "output_throughput": ("tokens/s", 2.5, False),
        "p99_ttft_ms": ("ms", 1.0, True),
        "p99_tpot_ms": ("ms", 1.0, True),
    }
    names = {"output_throughput": "output", "p99_ttft_ms": "TTFT p99", "p99_tpot_ms": "TPOT p99"}
    for key, (unit, bar, at_most) in asked.items():
        figures = {side: [result[key] for result in results] for side, results in found.items()}
        bars = [Bar(b.what, bar, b.figure, at_most, "x") for b in against(figures, {PEER: bar})]
        yield Row(
            f"serving {STREAMS} streams, {SERVED_IN} in, {SERVED_OUT} out: {names[key]}",
            unit,
            figures,
            bars,
            busy=others,
        )


def startup(bench: Bench) -> Iterator[Row]:
    bench.stop()

    def seconds(*options: str) -> float:
        server = Server(serve_command(), bench.model, *options)
        server.stop()
        return server.seconds_to_ready

    found, others = bench.take_turns(
        {OURS: seconds, "null model": lambda: seconds("--worker-cls", "bench_workers.NullWorker")}
    )
    added = statistics.median(a - b for a, b in zip(found[OURS], found["null model"]))
    yield Row(
        "start of `vllm serve`",
        "s",
        found,
        [Bar("beside vLLM's own share", 3.0, added, at_most=True, unit="s")],
        busy=others,
    )


def memory(bench: Bench) -> Iterator[Row]:
    """The KV cache is filled: what nobody has written takes no memory."""
    bench.stop()
    options = {
        "max_model_len": 2048,
        "max_num_seqs": 32,
        "num_gpu_blocks_override": 128,
        "max_num_batched_tokens": 2048,
    }
    found: dict[str, dict[str, float]] = {}
    for side, worker in ((OURS, "TimedWorker"), ("null model", "NullWorker")):
        engine = bench.engine(side, our_python(), worker_cls=f"bench_workers.{worker}", **options)
        engine.generate(8, 1000, 16)
        found[side] = engine.ask("memory")
        bench.stop()
    ours = found[OURS]
    needed = ours["weights"] + ours["kv cache"]
    figures = {
        "engine": ours["peak"], "engine of a null model": found["null model"]["peak"], "weights": ours["weights"], "KV cache": ours["kv cache"],
    }  # fmt: skip
    bars = [Bar("beside vLLM's own share, of weights and KV cache", 1.10, (ours["peak"] - found["null model"]["peak"]) / needed, at_most=True, unit="x")]  # fmt: skip
    yield Row("peak memory", "MB", {name: [size / 1e6] for name, size in figures.items()}, bars, busy=busy())


WORK: dict[str, Callable[[Bench], Iterator[Row]]] = {
    "decode": decode,
    "sampling": sampled_decode,
    "int8": int8_decode,
    "prefill": prefill,
    "long": long_context,
    "parts": parts,
    "serving": serving,
    "startup": startup,
    "memory": memory,
}
