"""Every attribute of vLLM that is not as vLLM made it stands in the adapter's ledger, and nothing else does."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import vllm_mindspore.compat
from tests.checkpoints import make_checkpoint, make_tokenizer
from tests.engines import ROW, environment
from vllm_mindspore.compat.common.patches import patches
from vllm_mindspore.matrix import rows

FOLDERS = [Path(package.__file__ or "").parent for package in (vllm_mindspore, vllm_mindspore.compat)]
DOORS = {"vllm.platforms._current_platform"}
"""Where vLLM itself puts what a plugin gives it."""


PATCH = """
import vllm.outputs, vllm.sampling_params, vllm.utils
vllm.outputs.RequestOutput.__repr__ = lambda self: ""
vllm.utils.cdiv = lambda a, b: 0
del vllm.sampling_params.SamplingParams.clone
"""


@pytest.fixture(scope="module")
def changed(tmp_path_factory: pytest.TempPathFactory) -> list[set[str]]:
    """What is not as it was, in a process that ran an engine, and once it has also run `PATCH`."""
    folder: Path = tmp_path_factory.mktemp("model")
    make_checkpoint(folder, "LlamaForCausalLM", dtype="bfloat16")
    make_tokenizer(folder)
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("watching.py")), str(folder), PATCH],
        env=environment(VLLM_ENABLE_V1_MULTIPROCESSING="0"), capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    # vLLM's log lines share standard output.
    return [set(json.loads(line)) - DOORS for line in done.stdout.splitlines() if line.startswith("[")]


@pytest.mark.slow
def test_the_ledger_names_what_is_changed_and_no_more(changed: list[set[str]]) -> None:
    listed = [patch.attribute for patch in patches(ROW.adapter)]
    assert changed[0] == set(listed)
    assert len(listed) == len(set(listed))


@pytest.mark.slow
def test_a_change_that_is_not_listed_is_found(changed: list[set[str]]) -> None:
    """Or the test above shows nothing."""
    assert changed[1] - changed[0] >= {
        "vllm.outputs.RequestOutput.__repr__", "vllm.utils.cdiv", "vllm.sampling_params.SamplingParams.clone (deleted)"
    }  # fmt: skip


def sources(adapter: str) -> list[Path]:
    """All of ours that runs with an adapter."""
    others = {row.adapter for row in rows()} - {adapter}
    return [p for folder in FOLDERS for p in folder.rglob("*.py") if not others & set(p.relative_to(folder).parts)]


def assigned(source: str) -> Iterator[str]:
    """Attributes of what a module imports from vLLM that it assigns, deletes or sets: "vllm.utils.cdiv"."""
    tree = ast.parse(source)
    imported: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "vllm":
            imported |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            names = [alias for alias in node.names if alias.name.partition(".")[0] == "vllm"]
            imported |= {alias.asname or "vllm": alias.name if alias.asname else "vllm" for alias in names}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, (ast.Store, ast.Del)):
            name = dotted(node.value, imported)
            if name:
                yield f"{name}.{node.attr}"
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("setattr", "delattr"):
            name = dotted(node.args[0], imported)
            if name:
                yield f"{name}.{getattr(node.args[1], 'value', '?')}"


def dotted(node: Any, imported: dict[str, str]) -> str | None:
    if isinstance(node, ast.Name):
        return imported.get(node.id)
    if isinstance(node, ast.Attribute):
        holder = dotted(node.value, imported)
        return holder and f"{holder}.{node.attr}"
    return None


def test_our_sources_set_no_attribute_of_vllm_that_is_not_listed() -> None:
    """Also plain data, and what runs in no engine of these tests."""
    found = {name for path in sources(ROW.adapter) for name in assigned(path.read_text(encoding="utf-8"))}
    assert found <= {patch.attribute for patch in patches(ROW.adapter)}


def test_assignments_are_found_in_sources() -> None:
    source = """
import vllm.utils
from vllm import envs as e
def later():
    from vllm.config import CacheConfig
    CacheConfig.block_size = 3
    block = CacheConfig()
    block.size = 4
    setattr(vllm.utils, "cdiv", None)
e.VLLM_USE_V1 = True
"""
    assert set(assigned(source)) == {"vllm.config.CacheConfig.block_size", "vllm.utils.cdiv", "vllm.envs.VLLM_USE_V1"}
