"""What an engine cannot do is listed in `cannot/<adapter>.toml`, with the reason; it is tried all the same and must fail."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.engines import ROW

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

HERE = Path(__file__).parent
LIST = HERE / "cannot" / f"{ROW.adapter}.toml"


def cannot() -> dict[str, str]:
    """Test (`file.py::test[id]`, or without `[id]` for all of them) -> why this engine cannot do it."""
    listed: dict[str, str] = tomllib.loads(LIST.read_text(encoding="utf-8")) if LIST.is_file() else {}
    return listed


def pytest_report_header() -> str:
    return f"engine under test: vLLM {ROW.vllm} {ROW.engine}, adapter {ROW.adapter}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    listed = cannot()
    found, files = set(), set()
    for item in items:
        if HERE not in item.path.parents:
            continue
        test = f"{item.path.name}::{item.name}"
        files.add(item.path.name)
        for name in (test, test.partition("[")[0]):
            if name in listed:
                found.add(name)
                # No matter where it fails: a whole module's engine may be what there is not.
                item.add_marker(pytest.mark.xfail(reason=listed[name], strict=True))
                break
    # With -k or single tests, items are left out later than here; single files are seen as such.
    stale = {name for name in listed if name.partition("::")[0] in files} - found
    if stale and not any("::" in argument for argument in items[0].config.args):
        raise pytest.UsageError(f"{LIST.name} lists tests that there are not: {', '.join(sorted(stale))}")
