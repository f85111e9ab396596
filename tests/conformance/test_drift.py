"""The installed vLLM is what the adapter wrote down that it relies on."""

from __future__ import annotations

import pytest

from tests.engines import ROW
from vllm_mindspore.cli.checks.drift import compare

pytestmark = pytest.mark.slow


def test_vllm_keeps_the_adapters_contract() -> None:
    found = compare([ROW.adapter])
    assert found.result, found.error
    names, differences = found.result[ROW.adapter]
    assert names > 50
    assert differences == []
