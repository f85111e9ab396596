"""The thread team: several callers at once, changes of size, and forked processes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.unit.kernels import abi, reference
from vllm_mindspore.kernels.cpu import library


@pytest.fixture
def problem() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """x, a packed weight, and their product computed by one thread."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((9, 64)).astype(np.float32)
    packed = library.pack_weight([rng.standard_normal((700, 64)).astype(np.float32)], "float32", "float32")
    with abi.threads(1):
        return x, packed, multiply(x, packed)


@pytest.fixture
def three_threads() -> Iterator[None]:
    with abi.threads(3):
        yield


def multiply(x: np.ndarray, packed: np.ndarray) -> np.ndarray:
    return abi.call("matmul", [x, packed, abi.count(len(x))], (len(x), 700))[0]


@pytest.mark.usefixtures("three_threads")
def test_callers_in_two_threads_get_their_own_results(problem: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    """ctypes lets go of the interpreter lock, so operators of two graphs do overlap."""
    x, packed, expected = problem
    right = []

    def work(sign: float) -> None:
        for _ in range(300):
            right.append((multiply(sign * x, packed) == sign * expected).all())

    callers = [threading.Thread(target=work, args=(sign,)) for sign in (1.0, -1.0)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(timeout=60)
    assert len(right) == 600
    assert all(right)


def test_size_may_change_between_operators(problem: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    x, packed, expected = problem
    before = library.num_threads()
    try:
        for number in [3, 1, 2, 5, 0, 4] * 5:
            library.set_num_threads(number)
            assert library.num_threads() == max(1, number)
            assert (multiply(x, packed) == expected).all()
    finally:
        library.set_num_threads(before)


@pytest.mark.skipif(not shutil.which("g++"), reason="needs g++")
def test_each_item_is_done_once_and_without_a_race(tmp_path: Path) -> None:
    """Threads share out an operator's items without a lock."""
    program = tmp_path / "team_stress"
    here, sources = Path(__file__).parent, Path(__file__).parents[3] / "kernels" / "cpu" / "csrc"
    built = subprocess.run(
        ["g++", "-std=gnu++17", "-O1", "-g", "-fsanitize=thread", f"-I{sources}", here / "team_stress.cc", sources / "team.cc", "-pthread", "-o", program],
        capture_output=True, text=True,
    )  # fmt: skip
    if "cannot find" in built.stderr and "tsan" in built.stderr:
        pytest.skip("this g++ comes without ThreadSanitizer")
    assert built.returncode == 0, built.stderr
    done = subprocess.run([program], capture_output=True, text=True, timeout=120)
    if "unexpected memory mapping" in done.stderr:
        pytest.skip("ThreadSanitizer does not know how this kernel lays out memory: sysctl vm.mmap_rnd_bits=28")
    assert done.returncode == 0, done.stdout + done.stderr


FORK = """
import os
import signal
import sys
import numpy as np
sys.path.append(sys.argv[1])
from tests.unit.kernels.test_team import library, multiply

library.set_num_threads(3)
x = np.ones((9, 64), np.float32)
packed = library.pack_weight([np.ones((700, 64), np.float32)], "float32", "float32")
assert (multiply(x, packed) == 64).all()
child = os.fork()
signal.alarm(20)
if child == 0:
    right = (multiply(x, packed) == 64).all()
    os._exit(0 if right and len(os.listdir("/proc/self/task")) == 3 else 1)
assert os.waitpid(child, 0)[1] == 0
assert (multiply(x, packed) == 64).all()
"""


def test_a_forked_child_computes_with_threads_of_its_own() -> None:
    """vLLM forks its workers: the parent's threads are not in the child, which would compute on one core or wait for ever."""
    # In a process of its own, as other tests may have run MindSpore in this one.
    done = subprocess.run(
        [sys.executable, "-c", FORK, str(Path(__file__).parents[3])], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr


def num_threads_of_a_new_process(cores: set[int], first: str = "", **variables: str) -> int:
    program = (
        f"import os; os.sched_setaffinity(0, {cores})\n{first}\n"
        "from vllm_mindspore.kernels.cpu import library; print(library.num_threads())"
    )
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    done = subprocess.run(
        [sys.executable, "-c", program], env={**environment, **variables}, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


NO_ROOM = """
import resource
import sys
from pathlib import Path
sys.path.append(sys.argv[1])
from tests.unit.kernels.test_team import library, multiply, np

x = np.ones((9, 64), np.float32)
packed = library.pack_weight([np.ones((700, 64), np.float32)], "float32", "float32")
library.set_num_threads(500)
held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (held + (100 << 20), resource.RLIM_INFINITY))
assert (multiply(x, packed) == 64).all()
"""


def test_threads_that_cannot_be_started_are_done_without() -> None:
    done = subprocess.run(
        [sys.executable, "-c", NO_ROOM, str(Path(__file__).parents[3])], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr


def test_default_size_is_that_of_the_machine_or_of_the_variable() -> None:
    cores = os.sched_getaffinity(0)
    assert num_threads_of_a_new_process(cores) == len(cores)
    assert num_threads_of_a_new_process({min(cores)}) == 1
    assert num_threads_of_a_new_process(cores, OMP_NUM_THREADS="7") == 7
    assert num_threads_of_a_new_process(cores, OMP_NUM_THREADS="5,2") == 5
    assert num_threads_of_a_new_process(cores, OMP_NUM_THREADS="many") == len(cores)
    assert num_threads_of_a_new_process(cores, OMP_NUM_THREADS="9" * 20) == 1024


def test_mindspore_does_not_choose_the_size() -> None:
    """It sets OMP_NUM_THREADS to 1 in the environment of C code, as it is imported."""
    cores = os.sched_getaffinity(0)
    set_by_mindspore = "import ctypes, mindspore; assert ctypes.CDLL(None).getenv(b'OMP_NUM_THREADS')"
    assert num_threads_of_a_new_process(cores, set_by_mindspore) == len(cores)


def test_idle_workers_sleep(problem: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    """A server without requests must not keep its cores busy."""
    x, packed, _ = problem
    with abi.threads(3):
        multiply(x, packed)
        threads = {int(task.name) for task in Path("/proc/self/task").iterdir()}
        before, pause = cpu_seconds(threads), threading.Event()
        pause.wait(0.5)
        assert cpu_seconds(threads) - before < 0.1


def cpu_seconds(threads: set[int]) -> float:
    """Processor time of some threads of this process."""
    ticks = 0
    for thread in threads:
        fields = Path(f"/proc/self/task/{thread}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def test_callers_that_take_tiny_numbers_for_zero_get_the_same_bits(isa: str, dtype: str) -> None:
    """MindSpore's threads are in that mode, and threads of vLLM's engine are not."""
    tiny = np.full((3, 8), 3e-5 if dtype == "float16" else 1e-39, np.float32)
    halves = np.full((3, 8), 3e-6, np.float16)

    def result() -> np.ndarray:
        packed = library.pack_weight([tiny], dtype, "float32")
        assert library.pack_weight([halves], dtype, "float16").view(np.uint8).any()
        x = np.full((1, 8), 1e4, np.float32)
        return abi.call("matmul", [x, packed, abi.count(1)], (1, 3))[0]

    expected = result()
    assert torch.set_flush_denormal(True)
    try:
        found = result()
        assert float(torch.tensor([1e-39]) * 1) == 0  # the caller's mode is as it was
    finally:
        torch.set_flush_denormal(False)
    assert np.array_equal(found, expected)
    assert (expected > 0).all() or (
        isa in reference.ROUNDING_ISAS and dtype == "bfloat16"
    )  # whose dot products know no tiny numbers
