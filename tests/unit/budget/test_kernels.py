"""Instructions of the hot kernels, which no other work on the machine changes: one that does more than it did is seen here."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.unit.budget.budgets import BUDGET
from vllm_mindspore.kernels.cpu import library

HERE = Path(__file__).parent
ISA = "avx2"
CASES = BUDGET["instructions"]


@pytest.fixture(scope="module")
def counts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, int]:
    """Instructions of each case of operators.cc."""
    if not shutil.which("valgrind"):
        pytest.skip("valgrind, which counts instructions, is not installed")
    if ISA not in library.available_isas():
        pytest.skip(f"the budget is of {ISA}, the most that valgrind knows, and this machine has none")
    compiler = os.environ.get("CXX", "g++")
    if not shutil.which(compiler):
        pytest.skip(f"there is no {compiler} to compile the calls with")
    folder = tmp_path_factory.mktemp("instructions")
    program, found = folder / "operators", folder / "callgrind.out"
    subprocess.run([compiler, "-std=c++17", "-w", HERE / "operators.cc", "-o", program, "-ldl"], check=True)
    counted = [f"--toggle-collect={case}" for case in CASES]
    done = subprocess.run(
        ["valgrind", "--tool=callgrind", f"--callgrind-out-file={found}", "--collect-atstart=no", *counted, program, library.path(), ISA],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    listing = subprocess.check_output(["callgrind_annotate", "--inclusive=yes", "--threshold=100", found], text=True)
    lines = re.findall(r"^\s*([\d,]+) .*?:(\w+) \[\S*operators\]$", listing, re.MULTILINE)
    return {name: int(number.replace(",", "")) for number, name in lines}


@pytest.mark.parametrize("case", CASES)
def test_a_kernel_needs_no_more_instructions_than_it_did(counts: dict[str, int], case: str) -> None:
    assert counts[case] <= CASES[case], f"{counts[case]} instructions, the budget of {case} is {CASES[case]}"
    assert counts[case] > CASES[case] / 2, (
        f"{case} needs {counts[case]} instructions only: lower its budget, {CASES[case]}"
    )
