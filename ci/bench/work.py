"""The work that is measured: a function for each kind, which yields a row of the table for each thing that it measures.

Sides take turns, so that what disturbs the machine disturbs all of them; a figure is the median over the rounds, a ratio the median of the ratios
round by round, and the limits are measured in every round as well.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Callable

from machine import Limits, busy
from network import Network, Products
from servers import Server
from sides import LLAMA, OURS, PEER, THREADS, Engine, Llama, our_python

PROMPT, STEPS = 32, 64
PREFILL_PROMPTS, PREFILL_LENGTH = 4, 1024
LONG_BATCH, LONG_CONTEXTS = 8, (2048, 4096, 8192)
STREAMS, SERVED_IN, SERVED_OUT = 16, 128, 128
READS, PEAK = "read bandwidth", "peak"

Rounds = Mapping[str, list[float]]


@dataclass
class Bar:
    """What is asked for, and what was found."""

    what: str
    bar: float
    figure: float
    at_most: bool = False
    unit: str = ""
    """"%", "ms", "s" or "x"."""

    @property
    def met(self) -> bool:
        return self.figure <= self.bar if self.at_most else self.figure >= self.bar


@dataclass
class Row:
    """A line of the table."""

    work: str
    unit: str
    sides: dict[str, list[float]]
    """Of each side, a figure for each round."""
    bars: list[Bar] = field(default_factory=list)
    step: dict[str, float] | None = None
    """Bytes and floating point operations of a step, and the tokens that it brings forward."""
    busy: float = 0.0
    """Part of the cores that was at other work, the median over the rounds."""


class Bench:
    """Everything that the work needs: the sides that are there, started when they are first asked for."""

    def __init__(self, model: Path, folder: Path, peer: str | None, llama: Path | None, rounds: int) -> None:
        self.model, self.peer, self.rounds = model, peer, rounds
        self.network = Network(model)
        self.limits = Limits(folder)
        self.llama = Llama(llama, folder) if llama else None
        self._engines: dict[str, Engine] = {}

    def engine(self, name: str, python: str, **options: Any) -> Engine:
        """The engine of that name, started if there is none yet."""
        if name not in self._engines:
            self._engines[name] = Engine(python, self.model, **options)
        return self._engines[name]

    def short(self, side: str) -> Engine:
        """For prompts of up to 1024 tokens."""
        python = our_python() if side == OURS else str(self.peer)
        return self.engine(side, python, max_model_len=2048, max_num_seqs=32)

    def stop(self) -> None:
        for engine in self._engines.values():
            engine.stop()
        self._engines.clear()

    def vllms(self) -> list[str]:
        return [OURS, *([PEER] if self.peer else [])]

    def take_turns(self, sides: Mapping[str, Callable[[], Any]]) -> tuple[dict[str, list[Any]], float]:
        """Call each side once a round, after a call that does not count; the results, and how busy the machine was."""
        for side in sides.values():
            side()
        found: dict[str, list[Any]] = {side: [] for side in sides}
        others = []
        for i in range(self.rounds):
            others.append(busy())
            for side, measure in sides.items():
                found[side].append(measure())
            print(f"  round {i + 1} of {self.rounds}", file=sys.stderr)
        return found, statistics.median(others)

    def measured_limits(self) -> tuple[float, float]:
        return self.limits.measure(THREADS)


def ratio(ours: list[float], others: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(ours, others))


def against(figures: Rounds, bars: Mapping[str, float]) -> list[Bar]:
    """Bars of the form "so many times what that side does", for the sides that are there."""
    return [
        Bar(f"of {side}", bar, ratio(figures[OURS], figures[side]), unit="x")
        for side, bar in bars.items()
        if side in figures
    ]


def with_limits(found: dict[str, list[Any]]) -> dict[str, list[float]]:
    """The pairs of limits as two sides, in GB/s and GFLOP/s."""
    pairs = found.pop("limits")
    return {**found, READS: [reads / 1e9 for reads, _ in pairs], PEAK: [peak / 1e9 for _, peak in pairs]}


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
    """A prompt is computed once: later rounds find it in the prefix cache, and so do longer prompts that begin with it."""
    engine = bench.engine(
        "long", our_python(), max_model_len=max(LONG_CONTEXTS), max_num_seqs=LONG_BATCH, enable_prefix_caching=True
    )

    sides: dict[str, Callable[[], Any]] = {"limits": bench.measured_limits}
    for context in LONG_CONTEXTS:
        sides[str(context)] = partial(engine.decode_rate, LONG_BATCH, context - STEPS, STEPS - 1, seed=1)
    found, others = bench.take_turns(sides)
    figures = with_limits(found)
    shortest, middle, longest = ([LONG_BATCH / rate for rate in figures[str(context)]] for context in LONG_CONTEXTS)
    more_bytes = bench.network.cache_bytes(LONG_BATCH * (LONG_CONTEXTS[-1] - LONG_CONTEXTS[0]))
    reads = [more_bytes / (b - a) / 1e9 for a, b in zip(shortest, longest)]
    slopes = [(c - b) / (LONG_CONTEXTS[2] - LONG_CONTEXTS[1]) / ((b - a) / (LONG_CONTEXTS[1] - LONG_CONTEXTS[0]))
              for a, b, c in zip(shortest, middle, longest)]  # fmt: skip
    for context in LONG_CONTEXTS:
        rates = {OURS: figures[str(context)], READS: figures[READS], PEAK: figures[PEAK]}
        amounts = bench.network.decode(LONG_BATCH, context - STEPS / 2)
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
    """What we add to a step: ours, without its launches, without the same step of a null model."""
    options = {"max_model_len": 2048, "max_num_seqs": 32}
    timed = bench.engine("timed", our_python(), worker_cls="bench_workers.TimedWorker", **options)
    null = bench.engine("null", our_python(), worker_cls="bench_workers.NullWorker", **options)

    def measure(engine: Engine, batch: int) -> tuple[float, float, float]:
        engine.ask("taken_steps")
        engine.generate(batch, PROMPT, STEPS + 1)
        return _parts_of_steps(engine.ask("taken_steps"), batch)

    for batch, bar in ((1, 0.3), (32, 2.0)):
        found, others = bench.take_turns({OURS: partial(measure, timed, batch), "null": partial(measure, null, batch)})
        ours, nulls = ([[1e3 * second for second in steps] for steps in found[side]] for side in (OURS, "null"))
        figures = {
            "step": [step for step, _, _ in ours],
            "launches": [launches for _, _, launches in ours],
            "worker without launches": [worker - launches for _, worker, launches in ours],
            "step of a null model": [step for step, _, _ in nulls],
            "worker of a null model": [worker for _, worker, _ in nulls],
        }
        added = [step - launches - own for (step, _, launches), (own, _, _) in zip(ours, nulls)]
        yield Row(f"parts of a step, batch {batch}", "ms", figures, [Bar("beside kernels and vLLM", bar, statistics.median(added), at_most=True, unit="ms")], busy=others)  # fmt: skip


def _parts_of_steps(steps: list[list[float]], batch: int) -> tuple[float, float, float]:
    """Medians over the steps in which each sequence got a token: from one step's begin to the next, in the worker, in launches."""
    pairs = [(a, b) for a, b in zip(steps, steps[1:]) if a[0] == b[0] == batch]
    return (
        statistics.median(b[1] - a[1] for a, b in pairs),
        statistics.median(a[3] - a[1] for a, _ in pairs),
        statistics.median(a[2] for a, _ in pairs),
    )


def serving(bench: Bench) -> Iterator[Row]:
    bench.stop()  # a server is not to share the memory with what waits
    pythons = {OURS: our_python(), **({PEER: bench.peer} if bench.peer else {})}
    servers: dict[str, Server] = {}
    try:
        for side, python in pythons.items():
            servers[side] = Server(python, bench.model)
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
        server = Server(our_python(), bench.model, *options)
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
        "num_gpu_blocks_override": 512,
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
    "prefill": prefill,
    "long": long_context,
    "parts": parts,
    "serving": serving,
    "startup": startup,
    "memory": memory,
}
