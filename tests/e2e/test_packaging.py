"""What is published: an sdist, the wheel that is built from it, and an editable install."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest

from tests.conftest import ROOT
from vllm_mindspore.matrix import rows

pytestmark = pytest.mark.slow

BIN = Path(sys.executable).parent
NOT_SOURCE = shutil.ignore_patterns(".git", ".venv", ".envs", "build", "dist", "__pycache__", ".*_cache")


def run(*command: str | Path, cwd: Path | None = None) -> str:
    environment = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(ROOT, tmp_path_factory.mktemp("checkout") / "vllm-mindspore", ignore=NOT_SOURCE))


@pytest.fixture(scope="module")
def published(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist, and the wheel that was built from it and repaired."""
    folder = tmp_path_factory.mktemp("published")
    run(sys.executable, "-m", "build", "--installer", "uv", "--outdir", folder / "built", checkout)
    (wheel,) = (folder / "built").glob("*.whl")
    run("auditwheel", "repair", "--wheel-dir", folder, wheel)
    shutil.move(next((folder / "built").glob("*.tar.gz")), folder)
    return folder


def the_wheel(published: Path) -> Path:
    (wheel,) = published.glob("*.whl")
    return wheel


def test_the_wheel_needs_no_newer_system_than_its_name_says(published: Path) -> None:
    name = the_wheel(published).name
    assert name.startswith("vllm_mindspore-")
    assert "-py3-none-manylinux_2_34_" in name
    run("twine", "check", "--strict", *published.glob("*.whl"), *published.glob("*.tar.gz"))


def test_every_module_arrives_where_it_is_imported_from(published: Path) -> None:
    places = {
        "vllm_mindspore": "vllm_mindspore",
        "compat": "vllm_mindspore/compat",
        "kernels": "vllm_mindspore/kernels",
    }
    expected = {
        f"{place}/{file.relative_to(ROOT / folder)}"
        for folder, place in places.items()
        for kind in ("*.py", "*.toml", "py.typed")
        for file in (ROOT / folder).rglob(kind)
    }
    with zipfile.ZipFile(the_wheel(published)) as wheel:
        arrived = {name for name in wheel.namelist() if ".dist-info/" not in name and name[-1] != "/"}
    assert arrived == expected | {
        "vllm_mindspore/version_matrix.toml",
        "vllm_mindspore/kernels/cpu/libvllm_mindspore_cpu.so",
    }


def test_the_metadata_is_complete(published: Path) -> None:
    with zipfile.ZipFile(the_wheel(published)) as wheel:
        (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = message_from_bytes(wheel.read(name))
        entry_points = wheel.read(name.replace("METADATA", "entry_points.txt")).decode()
    assert {row.extra for row in rows()} <= set(metadata.get_all("Provides-Extra"))
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] == "<3.12,>=3.9"
    assert {f"Programming Language :: Python :: {python}" for python in ("3.9", "3.10", "3.11")} <= set(
        metadata.get_all("Classifier")
    )
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert metadata.get_all("Project-URL")
    assert "vllm.platform_plugins" in entry_points
    assert "vllm.general_plugins" in entry_points


def test_an_editable_install_finds_its_parts_and_its_kernels_compute(checkout: Path, tmp_path: Path) -> None:
    run("uv", "venv", "--python", sys.executable, tmp_path / "venv")
    python = tmp_path / "venv/bin/python"
    run("uv", "pip", "install", "--python", python, "--editable", checkout, "numpy<2")
    code = (
        "import vllm_mindspore.compat.common.patches as patches; print(patches.__file__);"
        "from vllm_mindspore.kernels.cpu import library; print(library.self_check())"
    )
    where, computed = run(python, "-c", code, cwd=tmp_path).splitlines()
    assert Path(where) == checkout / "compat/common/patches.py"
    assert computed in ("amx", "avx512bf16", "avx512", "avx2", "portable", "neon")
    assert "vllm091" in run(tmp_path / "venv/bin/vllm-mindspore", "matrix")
