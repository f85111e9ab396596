from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.reference import Reference


@pytest.fixture(scope="session")
def reference(demo_model: Path) -> Reference:
    """The demo model as transformers computes it in float32."""
    return Reference(demo_model)
