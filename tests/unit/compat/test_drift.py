"""A vLLM that is not what an adapter was written for is named, thing by thing."""

from __future__ import annotations

import ast
import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import vllm_mindspore.compat
from vllm_mindspore.cli import matrix_table
from vllm_mindspore.cli.checks import drift as check
from vllm_mindspore.cli.checks.drift import Comparison
from vllm_mindspore.compat.common import drift
from vllm_mindspore.errors import UserError

COMPAT = Path(vllm_mindspore.compat.__file__ or "").parent
SOURCE = """
from dataclasses import dataclass, field
from enum import Enum

@dataclass
class Request:
    name: str
    blocks: list = field(default_factory=list)

class Batch:
    size: int
    def __init__(self, rows):
        self.rows = rows
    def add(self, request, row=None, *, last): ...
    @classmethod
    def empty(cls, rows): ...
    @property
    def full(self): ...

class Kind(Enum):
    A = 1

def sample(logits, *, seed=0): ...
LIMIT = 3
"""
NAMES = [
    "Request", "Request.name", "Request.blocks", "Batch", "Batch.size", "Batch.rows", "Batch.add", "Batch.empty", "Batch.full",
    "Kind", "Kind.A", "sample", "LIMIT",
]  # fmt: skip


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package `engine` with a module `engine.core.batch`, to be changed by a test."""
    module = tmp_path / "engine" / "core" / "batch.py"
    module.parent.mkdir(parents=True)
    module.write_text(SOURCE)
    monkeypatch.syspath_prepend(tmp_path)
    yield module
    forget()


def forget() -> None:
    importlib.invalidate_caches()
    for name in [name for name in sys.modules if name.partition(".")[0] == "engine"]:
        del sys.modules[name]


def written() -> dict[str, str]:
    return {f"engine.core.batch.{name}": drift.describe(f"engine.core.batch.{name}") for name in NAMES}


def changed(module: Path, old: str, new: str) -> None:
    source = module.read_text()
    assert old in source
    module.write_text(source.replace(old, new))
    module.parent.joinpath("__pycache__").exists() and [f.unlink() for f in module.parent.glob("__pycache__/*")]
    forget()


def test_a_contract_says_how_a_thing_is_called_or_that_it_is_there(package: Path) -> None:
    assert {name.rpartition("batch.")[2]: what for name, what in written().items()} == {
        "Request": "(name, blocks=)", "Request.name": "field", "Request.blocks": "field",
        "Batch": "(rows)", "Batch.size": "field", "Batch.rows": "field", "Batch.add": "(self, request, row=, *, last)",
        "Batch.empty": "(cls, rows)", "Batch.full": "attribute",
        "Kind": "attribute", "Kind.A": "attribute", "sample": "(logits, *, seed=)", "LIMIT": "attribute",
    }  # fmt: skip
    assert drift.differences(written()) == []


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("def sample(logits, *, seed=0)", "def sample(logits, temperature, *, seed=0)",
         "engine.core.batch.sample is called with (logits, temperature, *, seed=) and not called with (logits, *, seed=)."),
        ("request, row=None", "request, row", "engine.core.batch.Batch.add is called with (self, request, row, *, last) and not called with (self, request, row=, *, last)."),
        ("    name: str", "    title: str", "engine.core.batch.Request has no name."),
        ("self.rows = rows", "self.lines = rows", "engine.core.batch.Batch has no rows."),
        ("    A = 1", "    B = 1", "engine.core.batch.Kind has no A."),
        ("LIMIT = 3", "", "engine.core.batch has no LIMIT."),
        ("class Batch:", "class InputBatch:", "engine.core.batch has no Batch."),
        ("LIMIT = 3", "import not_there", "engine.core.batch does not import: No module named 'not_there'."),
    ],
    ids=["a parameter more", "no default any more", "vanished field", "vanished attribute of objects", "vanished member", "vanished constant",
         "renamed class", "a module that does not import"],
)  # fmt: skip
def test_what_changed_is_named(package: Path, old: str, new: str, said: str) -> None:
    contract = written()
    changed(package, old, new)
    assert said in drift.differences(contract)


def test_a_renamed_module_is_named_once(package: Path) -> None:
    contract = written()
    package.parent.rename(package.parent.with_name("kernel"))
    forget()
    assert drift.differences(contract) == ["engine has no module core."]


def test_what_a_thing_is_does_not_matter_if_only_its_being_there_was_written_down(package: Path) -> None:
    assert drift.differences({"engine.core.batch.sample": "attribute", "engine.core.batch.LIMIT": "attribute"}) == []


def test_a_contract_is_filled_in_and_nothing_is_written_if_a_name_is_wrong(package: Path, tmp_path: Path) -> None:
    file = tmp_path / "contract.toml"
    file.write_text('"engine.core.batch.sample" = ""\n"engine.core.batch.Batch" = "attribute"\n')
    assert drift.fill_in(file, "v9") == []
    lines = [line for line in file.read_text().splitlines() if line and not line.startswith("#")]
    assert lines == ['"engine.core.batch.Batch" = "attribute"', '"engine.core.batch.sample" = "(logits, *, seed=)"']
    file.write_text('"engine.core.batch.sampel" = ""\n')
    assert drift.fill_in(file, "v9") == ["engine.core.batch has no sampel."]
    assert file.read_text() == '"engine.core.batch.sampel" = ""\n'


ADAPTERS = sorted(path.parent.name for path in COMPAT.glob(f"*/{drift.FILE}"))


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_a_contract_names_all_that_an_adapter_imports(adapter: str) -> None:
    listed = drift.contract(adapter)
    imported = {name for file in used_by(adapter) for name in imports(file)}
    assert imported
    missing = {name for name in imported if not any(entry == name or entry.startswith(f"{name}.") for entry in listed)}
    assert not missing
    assert "" not in listed.values()


def used_by(adapter: str) -> list[Path]:
    """An adapter's files and those of `common` that they import, directly or not."""
    found, queue = set(), list((COMPAT / adapter).glob("*.py"))
    while queue:
        file = queue.pop()
        if file in found:
            continue
        found.add(file)
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("vllm_mindspore.compat."):
                parts = (node.module or "").split(".")[2:]
                candidates = [COMPAT.joinpath(*parts), *(COMPAT.joinpath(*parts, alias.name) for alias in node.names)]
                queue += [path.with_suffix(".py") for path in candidates if path.with_suffix(".py").is_file()]
    return sorted(found)


def imports(file: Path) -> Iterator[str]:
    """Dotted names of vLLM that a file imports when it runs, so not only for its type hints."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    hints = [
        node for block in ast.walk(tree)
        if isinstance(block, ast.If) and getattr(block.test, "id", "") == "TYPE_CHECKING" for node in ast.walk(block)
    ]  # fmt: skip
    for node in ast.walk(tree):
        if node in hints:
            continue
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "vllm":
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.partition(".")[0] == "vllm")


def compared(adapters: list[str]) -> Comparison:
    found = {adapter: [10, ["vllm.a has no b."] * 5] for adapter in adapters}
    return Comparison({**found, "v0_8_3_v1": [20, ["vllm.c has no d."]], "v0_7_3": [0, []]}, "")


def test_the_adapter_that_fits_best_is_told_with_what_differs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(check, "compare", compared)
    monkeypatch.setattr(matrix_table, "version", lambda name: "0.8.5")
    assert matrix_table.probe(as_json=False) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["vLLM 0.8.5 is installed.", "  v0_8_3_v1 (vLLM 0.8.3, V1): 1 of 20 names differ"]
    assert lines[-3:] == [
        "v0_8_3_v1 fits best.",
        "vLLM 0.8.5 has no row: VLLM_MINDSPORE_TRY_UNKNOWN_VLLM=1 tries v0_8_3_v1, as 0.8.3 is the nearest release.",
        "  vllm.c has no d.",
    ]
    assert "v0_7_3" not in "\n".join(lines)
    matrix_table.probe(as_json=True)
    report = json.loads(capsys.readouterr().out)
    assert report["installed"] == "0.8.5"
    assert report["fits"][0]["differences"] == ["vllm.c has no d."]


def test_what_differs_is_told_of_the_adapter_that_would_be_tried(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(check, "compare", compared)
    monkeypatch.setattr(matrix_table, "version", lambda name: "0.9.0")
    assert matrix_table.probe(as_json=False) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[-7:] == [
        "v0_8_3_v1 fits best.",
        "vLLM 0.9.0 has no row: VLLM_MINDSPORE_TRY_UNKNOWN_VLLM=1 tries v0_9_1, as 0.9.1 is the nearest release.",
        *["  vllm.a has no b."] * 5,
    ]


def test_a_vllm_that_does_not_import_cannot_be_probed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "compare", lambda adapters: Comparison(None, "ImportError: no torch"))
    monkeypatch.setattr(matrix_table, "version", lambda name: "0.8.5")
    with pytest.raises(UserError, match=r"vLLM 0\.8\.5 does not import: ImportError: no torch"):
        matrix_table.probe(as_json=False)
