"""Where the library is found, and what is said when it is missing, foreign or wrong."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import vllm_mindspore.kernels.cpu as package
from vllm_mindspore.kernels.cpu import library
from vllm_mindspore.kernels.errors import KernelError


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder in which the library is looked for, empty."""
    monkeypatch.setattr(package, "__path__", [str(tmp_path)])
    library.path.cache_clear()
    library.load.cache_clear()
    yield tmp_path
    library.path.cache_clear()
    library.load.cache_clear()


def test_a_missing_library_is_named_with_the_remedy(folder: Path) -> None:
    with pytest.raises(
        KernelError, match=rf"not built: {folder}/libvllm_mindspore_cpu.so is missing.*check-env names the command"
    ):
        library.isa()


def test_a_library_of_another_machine_is_named_with_the_remedy(folder: Path) -> None:
    own = bytearray(Path("/proc/self/exe").resolve().read_bytes()[:4096])
    assert own[:4] == b"\x7fELF"
    own[18] = 0x15  # e_machine: PowerPC
    (folder / "libvllm_mindspore_cpu.so").write_bytes(own)
    with pytest.raises(
        KernelError,
        match=r"cannot be loaded \(.*libvllm_mindspore_cpu.so.*another machine.*check-env names the command",
    ):
        library.isa()


def test_the_second_folder_of_the_package_is_searched_too(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An editable install has the Python files in the checkout and the library in site-packages."""
    (folder / "two").mkdir()
    (folder / "two" / "libvllm_mindspore_cpu.so").touch()
    monkeypatch.setattr(package, "__path__", [str(folder), str(folder / "two")])
    assert library.path() == folder / "two" / "libvllm_mindspore_cpu.so"


def test_an_instruction_set_that_is_not_there_is_refused() -> None:
    with pytest.raises(KernelError, match=f"instruction set mmx here: choose one of .*{library.available_isas()[-1]}"):
        library.set_isa("mmx")


def test_self_check_names_the_instruction_set(isa: str) -> None:
    assert library.self_check() == isa


def test_self_check_notices_a_wrong_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel miscompiled for this machine must not serve: here matmul does nothing."""

    class Broken:
        def __getattr__(self, name: str) -> object:
            return (lambda *_: 0) if name == "matmul" else getattr(real, name)

    real = library.load()
    monkeypatch.setattr(library, "load", Broken)
    with pytest.raises(KernelError, match=r"compute \[\[0.0, 0.0\]\] where \[\[-2.0, 7.0\]\] is right"):
        library.self_check()
