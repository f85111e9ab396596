"""The matrix is what everything else follows."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import replace
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from vllm_mindspore import matrix
from vllm_mindspore.cli import main
from vllm_mindspore.errors import UserError
from vllm_mindspore.models.registry import supported_architectures

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]


@pytest.mark.parametrize("row", matrix.rows(), ids=lambda row: row.adapter)
def test_extras_say_what_the_matrix_says(row: matrix.Row) -> None:
    assert set(map(Requirement, PROJECT["optional-dependencies"][row.extra])) == {
        Requirement(f"vllm=={row.vllm}"),
        *(Requirement(f"{name}{specifier}") for name, specifier in row.everywhere.items()),
        *(
            Requirement(f"{name}{specifier}; platform_machine == '{machine}'")
            for machine, requirements in row.by_machine.items()
            for name, specifier in requirements.items()
        ),
    }
    assert set(Requirement(f"python{PROJECT['requires-python']}").specifier) == set(
        Requirement(f"python{row.python}").specifier
    )


@pytest.mark.parametrize(
    ("name", "breaks"),
    [
        ("transformers", "5.0.0"),  # 'aimv2' is already used by a Transformers config
        ("numpy", "2.0.0"),  # MindSpore 2.7 to 2.9 are built against numpy 1
    ],
)
@pytest.mark.parametrize("row", matrix.rows(), ids=lambda row: row.adapter)
def test_what_came_out_since_and_breaks_it_is_capped(row: matrix.Row, name: str, breaks: str) -> None:
    assert breaks not in Requirement(f"{name}{row.everywhere[name]}").specifier


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "is missing"),
        ("release = [", "is damaged (Invalid value"),
        ("", "is damaged (it has no 'release')"),
        ("[[release]]\nvllm = '0.9.1'\n", "is damaged (it has no 'engine')"),
    ],
)
def test_a_damaged_table_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], content: str | None, said: str
) -> None:
    """Even where a command is asked for help, which names the rows."""
    file = tmp_path / "package" / "version_matrix.toml"
    file.parent.mkdir()
    if content is not None:
        file.write_text(content)
    monkeypatch.setattr(matrix, "__file__", str(tmp_path / "package" / "matrix.py"))
    matrix._table.cache_clear()
    matrix.rows.cache_clear()
    try:
        assert main.main(["matrix", "--help"]) == 1
    finally:
        matrix._table.cache_clear()
        matrix.rows.cache_clear()
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"vllm-mindspore matrix: {file} {said}")
    assert line.endswith(": install vllm-mindspore again.")


def test_what_a_row_needs_depends_on_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    oldest = matrix.rows()[0]
    for machine, needed in [("x86_64", "xgrammar"), ("aarch64", "torch")]:
        monkeypatch.setattr(matrix.platform, "machine", lambda machine=machine: machine)
        assert set(oldest.requirements) - set(oldest.everywhere) == {needed}


@pytest.mark.parametrize("row", matrix.rows(), ids=lambda row: row.adapter)
def test_every_row_has_its_adapter_and_its_models(row: matrix.Row) -> None:
    assert find_spec(f"vllm_mindspore.compat.{row.adapter}") is not None
    assert row.models
    assert set(row.models) <= set(supported_architectures())
    assert row.engine in ("V0", "V1")


@pytest.mark.parametrize("row", matrix.rows(), ids=lambda row: row.adapter)
def test_a_pair_says_how_it_was_verified(row: matrix.Row) -> None:
    mindspore = Requirement(f"mindspore{row.requirements['mindspore']}").specifier
    for pair in row.pairs:
        assert pair.verified in matrix.VERIFIED
        assert pair.device == "cpu" or (pair.device in matrix.devices() and pair.cann)
        assert bool(pair.python) == (pair.device == "cpu")
        if pair.verified == "cpu":  # what the test sessions run, the extra installs
            assert all(release in mindspore for release in pair.mindspore)
        assert pair.verified == "cpu" or pair.shown


def test_a_row_is_as_verified_as_its_best_pair() -> None:
    pairs = tuple(matrix.Pair(("2.7.1",), "cpu", verified) for verified in ("declared", "cpu", "tried"))
    assert replace(matrix.rows()[0], pairs=pairs).verified == "cpu"


def test_no_pair_is_verified_on_a_device_that_has_no_backend() -> None:
    # Falls when kernels/ascend comes, and then says where `contract` and more may be claimed.
    assert find_spec("vllm_mindspore.kernels.ascend") is None
    assert {pair.verified for row in matrix.rows() for pair in row.pairs if pair.device != "cpu"} == {"declared"}


def test_the_toolkits_of_the_installed_mindspore_are_those_of_its_wheel() -> None:
    origin = find_spec("mindspore").origin
    source = (Path(origin).parent / "run_check" / "_check_version.py").read_text()
    listed = re.search(r"class AscendEnvChecker.*?self\.version = (\[.*?\])", source, re.DOTALL)
    assert json.loads(listed[1]) == matrix.toolkits()[version("mindspore")]


def test_the_installed_vllm_has_its_row() -> None:
    row = matrix.row_for_installed_vllm()
    assert row.vllm == version("vllm")


def test_a_build_of_a_known_release_is_that_release(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matrix, "version", lambda name: "0.9.1+cpu")
    assert matrix.row_for_installed_vllm().adapter == "v0_9_1"


@pytest.mark.parametrize(
    ("asked", "adapter"), [(None, "v0_8_3_v1"), ("0", "v0_8_3_v0"), ("1", "v0_8_3_v1"), ("yes", "v0_8_3_v1")]
)
def test_vllms_own_variable_chooses_the_engine(
    monkeypatch: pytest.MonkeyPatch, asked: str | None, adapter: str
) -> None:
    monkeypatch.setattr(matrix, "version", lambda name: "0.8.3")
    monkeypatch.delenv("VLLM_USE_V1", raising=False)
    if asked is not None:
        monkeypatch.setenv("VLLM_USE_V1", asked)
    assert matrix.row_for_installed_vllm().adapter == adapter
    assert matrix.row_for_installed_vllm("V0").adapter == "v0_8_3_v0"


@pytest.mark.parametrize(
    ("installed", "adapter"),
    [
        ("0.9.2", "v0_9_1"),
        ("0.9.0", "v0_9_1"),
        ("0.8.5.post1", "v0_8_3_v1"),
        ("0.8.0", "v0_8_3_v1"),
        ("0.7.0", "v0_7_3"),
        ("0.10.0", "v0_9_1"),
        ("0.5.0", "v0_6_6"),
    ],
)
def test_an_unknown_release_may_be_tried_with_the_nearest_adapter(
    monkeypatch: pytest.MonkeyPatch, installed: str, adapter: str
) -> None:
    monkeypatch.setattr(matrix, "version", lambda name: installed)
    monkeypatch.setenv(matrix.TRY_UNKNOWN, "1")
    monkeypatch.delenv("VLLM_USE_V1", raising=False)
    assert matrix.row_for_installed_vllm().adapter == adapter


def test_an_unknown_release_is_refused_with_what_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matrix, "version", lambda name: "0.5.0")
    with pytest.raises(
        UserError, match=r"vLLM 0\.5\.0 is installed, and vllm-mindspore has no adapter for it: .*0\.9\.1"
    ):
        matrix.row_for_installed_vllm()
