"""The pair of vLLM and MindSpore that is run here is one that the matrix calls verified by continuous integration."""

from __future__ import annotations

import os
import platform
from importlib.metadata import requires, version

import pytest
from packaging.requirements import Requirement

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
