"""What surrounds the import of MindSpore; that it succeeds beside vLLM is shown by every engine that starts."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from vllm_mindspore.bootstrap import no_garbage_collection


class Ring:
    """Garbage that only a collection finds."""

    def __init__(self) -> None:
        self.me = self


@pytest.fixture(autouse=True)
def collector_of_its_own() -> Iterator[None]:
    enabled = gc.isenabled()
    gc.enable()
    yield
    gc.unfreeze()
    (gc.enable if enabled else gc.disable)()


def test_a_collection_that_somebody_asks_for_looks_at_new_objects_only() -> None:
    before = weakref.ref(Ring())
    with no_garbage_collection():
        assert not gc.isenabled()
        new = weakref.ref(Ring())
        gc.collect()
        assert new() is None
        assert before() is not None
    assert gc.isenabled()
    gc.collect()
    assert before() is None


def test_what_somebody_else_has_set_stays_also_after_an_error() -> None:
    gc.freeze()
    gc.disable()
    frozen = gc.get_freeze_count()
    with pytest.raises(RuntimeError, match="no import"), no_garbage_collection():
        raise RuntimeError("no import")
    assert not gc.isenabled()
    assert gc.get_freeze_count() > 0
    assert gc.get_freeze_count() <= frozen  # ours are not among them
