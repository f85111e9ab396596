"""The pair of vLLM and MindSpore that is run here is one that the matrix calls verified by continuous integration."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib.metadata import requires, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests import engines
from vllm_mindspore.compat.common.configuration import BLOCK_SIZES
from vllm_mindspore.matrix import row_for_installed_vllm


@pytest.mark.skipif("CI" not in os.environ, reason="only continuous integration makes a pair verified")
def test_what_is_run_here_is_what_the_matrix_says_is_run() -> None:
    verified = {
        (release, pair.python)
        for pair in row_for_installed_vllm().pairs
        if pair.verified == "cpu"
        for release in pair.mindspore
    }
    python = ".".join(platform.python_version_tuple()[:2])
    assert (version("mindspore"), python) in verified, "enter the pair in version_matrix.toml once all tests passed"


@pytest.mark.skipif(platform.machine() != "x86_64", reason="only the wheel for x86-64 pins its torch")
def test_the_torch_of_the_matrix_is_the_one_that_vllm_asks_for() -> None:
    asked = [Requirement(text) for text in requires("vllm") or []]
    assert [str(one.specifier) for one in asked if one.name == "torch"] == [row_for_installed_vllm().torch]


@pytest.mark.slow
def test_an_engine_is_sized_as_check_env_counts(demo_model: Path) -> None:
    """In a process of its own, as vLLM's choice of an engine is for the whole process."""
    script = f"""
from vllm import EngineArgs
from vllm.usage.usage_lib import UsageContext

config = EngineArgs(model={str(demo_model)!r}).create_engine_config(UsageContext.OPENAI_API_SERVER)
print(config.scheduler_config.max_num_seqs, config.cache_config.block_size)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=300, env=engines.environment()
    )
    assert done.returncode == 0, done.stderr
    row = engines.ROW
    assert done.stdout.splitlines()[-1] == f"{row.max_num_seqs} {BLOCK_SIZES[row.engine]}"
