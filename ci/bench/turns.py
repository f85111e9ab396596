"""What is measured takes turns, so that what disturbs the machine disturbs all sides."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Callable

from machine import Limits, busy
from network import Network
from sides import OURS, PEER, THREADS, Engine, Llama, our_python


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
        for measure in sides.values():
            measure()
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
