"""The locks, as far as they can be judged without an index; tests/e2e/test_resolve.py asks one."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from tests.conftest import ROOT
from vllm_mindspore.matrix import Row, rows


def test_no_lock_is_older_than_what_it_is_made_from() -> None:
    done = subprocess.run([sys.executable, ROOT / "ci/lock.py", "--check"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("row", {row.extra: row for row in rows()}.values(), ids=lambda row: row.extra)
def test_a_lock_pins_the_row_with_hashes_and_names_no_index(row: Row) -> None:
    lock = (ROOT / "locks" / f"{row.extra}.txt").read_text(encoding="utf-8")
    assert f"\nvllm=={row.vllm} " in lock
    assert f"\ntorch{row.torch} " in lock
    pinned = re.split(r"^(?=\w)", lock, flags=re.MULTILINE)[1:]
    assert all("--hash=sha256:" in entry for entry in pinned)
    assert len(pinned) > 100
    assert "://" not in lock
    assert "--index-url" not in lock
