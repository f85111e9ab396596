from __future__ import annotations

import pytest
from hypothesis import settings

settings.register_profile("kernels", deadline=None, derandomize=True, max_examples=50, database=None)


@pytest.fixture(scope="session", params=["bfloat16", "float16", "float32"])
def dtype(request: pytest.FixtureRequest) -> str:
    """A dtype of weights and caches."""
    name: str = request.param
    return name
