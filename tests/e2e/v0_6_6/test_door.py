"""vLLM 0.6.6 has no plugins for platforms: ours comes in with the general plugins, before anything looks at the platform."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

OURS = "vllm_mindspore.compat.v0_6_6.platform.MindSporePlatform"
NAME = """
def name():
    from vllm.platforms import current_platform
    kind = type(current_platform)
    return f"{kind.__module__}.{kind.__qualname__}"
"""


def run(script: str, tmp_path: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    file = tmp_path / "script.py"
    file.write_text(NAME + script)
    cleared = {name: value for name, value in os.environ.items() if not name.startswith("VLLM_")}
    return subprocess.run(
        [sys.executable, str(file)], env={**cleared, **environment}, capture_output=True, text=True, timeout=240
    )


def test_the_first_engine_arguments_bring_our_platform_to_every_module(tmp_path: Path) -> None:
    script = """
import vllm
print(name())
from vllm import EngineArgs, config, utils
EngineArgs(model="nobody/nothing")
print(name(), config.current_platform is utils.current_platform, config.DeviceConfig().device_type)
"""
    done = run(script, tmp_path)
    assert done.returncode == 0, done.stderr
    before, after = (line for line in done.stdout.splitlines() if not line.startswith(("INFO", "WARNING")))
    assert before == "vllm.platforms.interface.UnspecifiedPlatform", "the patch is no longer needed"
    assert after == f"{OURS} True cpu"


def test_it_is_there_in_every_process_that_loads_vllms_plugins(tmp_path: Path) -> None:
    """As the engine's process does, which vLLM spawns, and the process in which its registry inspects a class."""
    script = """
import multiprocessing

def child(queue):
    from vllm.plugins import load_general_plugins
    load_general_plugins()
    queue.put(name())

if __name__ == "__main__":
    for method in ("fork", "spawn"):
        context = multiprocessing.get_context(method)
        queue = context.Queue()
        process = context.Process(target=child, args=(queue,))
        process.start()
        print(f"{method}:", queue.get(timeout=120))
        process.join()
    from vllm.model_executor.models.registry import _run_in_subprocess
    from vllm.plugins import load_general_plugins
    load_general_plugins()
    print("registry:", _run_in_subprocess(name))
"""
    done = run(script, tmp_path)
    assert done.returncode == 0, done.stderr
    assert {f"{process}: {OURS}" for process in ("fork", "spawn", "registry")} <= set(done.stdout.splitlines())


def test_vllms_own_variable_keeps_us_out(tmp_path: Path) -> None:
    script = """
from vllm import EngineArgs
EngineArgs(model="nobody/nothing")
print(name())
"""
    done = run(script, tmp_path, VLLM_PLUGINS="")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "vllm.platforms.interface.UnspecifiedPlatform"
    assert "vllm-mindspore" not in done.stdout + done.stderr


def test_a_failure_is_not_passed_over(tmp_path: Path) -> None:
    """vLLM alone would log a general plugin's error and go on, to fail with "Failed to infer device type"."""
    (tmp_path / "sitecustomize.py").write_text(
        "import vllm_mindspore.matrix as matrix\n"
        "def fail(): raise ValueError('No row for vLLM 9.9.9.')\n"
        "matrix.row_for_installed_vllm = fail\n"
    )
    done = run("from vllm import LLM\nLLM('nobody/nothing')\n", tmp_path, PYTHONPATH=str(tmp_path))
    assert done.returncode != 0
    reason = "vllm-mindspore cannot be vLLM's platform: No row for vLLM 9.9.9. Run `vllm-mindspore check-env`"
    assert reason in done.stderr.splitlines()[-1]


def test_an_interpreter_that_starts_pays_nothing() -> None:
    script = "import sys; print(sorted(name for name in sys.modules if name.partition('.')[0] == 'vllm_mindspore'))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


def test_what_vllm_decided_before_we_came_is_what_we_would_have_said() -> None:
    """Modules of vLLM ask the platform these things while they are imported."""
    from vllm.platforms import interface

    from vllm_mindspore.compat.v0_6_6.platform import MindSporePlatform

    before, ours = interface.UnspecifiedPlatform(), MindSporePlatform()
    assert ours.dispatch_key == before.dispatch_key
    assert ours.inference_mode.__func__ is before.inference_mode.__func__
    asked = ["is_cuda", "is_rocm", "is_tpu", "is_hpu", "is_xpu", "is_cpu", "is_neuron", "is_openvino", "is_cuda_alike"]
    assert [getattr(ours, name)() for name in asked] == [getattr(before, name)() for name in asked] == [False] * 9
