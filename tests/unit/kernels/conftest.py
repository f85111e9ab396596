"""Every kernel exists once per instruction set: the tests that ask for `isa` run with each that this machine has."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import settings

from vllm_mindspore.kernels.cpu import library

settings.register_profile("kernels", deadline=None, derandomize=True, max_examples=50, database=None)


@pytest.fixture(scope="session", params=library.available_isas())
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    """Name of the instruction set in use."""
    before = library.isa()
    library.set_isa(request.param)
    yield request.param
    library.set_isa(before)


@pytest.fixture(scope="session", params=["bfloat16", "float16", "float32"])
def dtype(request: pytest.FixtureRequest) -> str:
    """A dtype of weights and caches."""
    name: str = request.param
    return name
