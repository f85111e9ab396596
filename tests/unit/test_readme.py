"""Figures of the README that the code knows better."""

from __future__ import annotations

import re
from pathlib import Path

from vllm_mindspore.compat.common.patches import patches
from vllm_mindspore.matrix import rows

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")


def test_the_readme_tells_how_many_attributes_of_vllm_each_adapter_patches() -> None:
    told = re.findall(r"^\| (\S+) \| (V[01]) \| (\d+) \|$", README, re.MULTILINE)
    assert told == [(row.vllm, row.engine, str(len(patches(row.adapter)))) for row in rows()]


def test_the_readme_lists_every_engine_the_default_one_of_each_release_first() -> None:
    told = re.findall(r"^\| (\S+) \| (V[01]) \| (default|`VLLM_USE_V1=0`.*|)\s*\|$", README, re.MULTILINE)
    assert {(release, engine) for release, engine, _ in told} == {(row.vllm, row.engine) for row in rows()}
    for row in rows():
        engines = [other.engine for other in rows() if other.vllm == row.vllm]
        how = next(how for release, engine, how in told if (release, engine) == (row.vllm, row.engine))
        expected = "" if len(engines) == 1 else "default" if row.engine == engines[0] else "`VLLM_USE_V1=0`"
        assert how.startswith(expected)
        assert bool(how) == bool(expected)


def test_every_patch_has_its_reasons() -> None:
    for row in rows():
        for patch in patches(row.adapter):
            assert patch.attribute.startswith("vllm.")
            assert all((patch.what, patch.why, patch.since, patch.removed_by))
