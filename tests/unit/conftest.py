"""Every kernel exists once per instruction set: the tests that ask for `isa` run with each that this machine has."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from vllm_mindspore.kernels.cpu import library


@pytest.fixture(scope="module", params=library.available_isas())
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    """Name of the instruction set in use, until the module's last test with it."""
    before = library.isa()
    library.set_isa(request.param)
    yield request.param
    library.set_isa(before)
