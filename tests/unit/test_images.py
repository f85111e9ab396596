"""`ci/build_image.sh` as far as it can be judged without a container engine: its arguments, and the command that it makes of them."""

from __future__ import annotations

import re
import shlex
import subprocess

import pytest

from tests.conftest import ROOT
from vllm_mindspore.matrix import Row, devices, rows, toolkits


def build_image(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([ROOT / "ci/build_image.sh", *arguments], capture_output=True, text=True, timeout=30)


def command(*arguments: str) -> list[str]:
    done = build_image(*arguments, "--dry-run")
    assert done.returncode == 0, done.stderr
    return shlex.split(done.stdout)


@pytest.mark.parametrize("system", ["debian", "openeuler"])
@pytest.mark.parametrize("device", ["cpu", *devices()])
@pytest.mark.parametrize("extra", sorted({row.extra for row in rows()}))
def test_every_row_has_an_image_for_every_device(extra: str, device: str, system: str) -> None:
    given = command("-a", device, "--row", extra, "--os", system)
    dockerfile = given[given.index("--file") + 1]
    assert dockerfile == f"ci/images/Dockerfile.{system}"
    built = dict(word.split("=", 1) for at, word in enumerate(given) if given[at - 1] == "--build-arg")
    declared = re.findall(r"^ARG (\w+)", (ROOT / dockerfile).read_text(), re.MULTILINE)
    assert sorted(built) == sorted(declared)
    assert built["EXTRA"] == extra
    assert ("ubuntu" if system == "debian" and device != "cpu" else system) in built["BASE"]
    assert device == "cpu" or f"-{device}-" in built["BASE"]
    assert given[given.index("--tag") + 1] == f"vllm-mindspore:{extra}-{device}-{system}"
    assert given[-1] == "."


@pytest.mark.parametrize("row", rows(), ids=lambda row: row.adapter)
def test_the_mindspore_of_an_image_takes_the_cann_of_its_base(row: Row) -> None:
    lock = (ROOT / "locks" / f"{row.extra}.txt").read_text(encoding="utf-8")
    mindspore = re.search(r"^mindspore==(\S+)", lock, re.MULTILINE)[1]
    base = re.search(r"cann:(\d+\.\d+)", " ".join(command("-a", "910b", "-r", row.extra)))[1]
    assert base in toolkits()[mindspore]


def test_base_and_name_are_the_users_to_choose() -> None:
    given = command("-a", "310p", "-b", "my/cann:8.3", "-t", "mine:1")
    assert "BASE=my/cann:8.3" in given
    assert given[given.index("--tag") + 1] == "mine:1"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "-a is missing: cpu, 910b or 310p"),
        (["-a", "900"], "-a 900 is none of cpu, 910b and 310p"),
        (["-a", "cpu", "-o", "windows"], "-o windows is neither debian nor openeuler"),
        (["-a", "cpu", "-r", "vllm010"], "-r vllm010 is none of vllm066 vllm073 vllm083 vllm091"),
        (["-a"], "-a wants a value"),
        (["-a", "cpu", "--frobnicate"], "--frobnicate is no option"),
    ],
)
def test_a_wrong_argument_is_named(arguments: list[str], said: str) -> None:
    done = build_image(*arguments)
    assert done.returncode == 2
    assert done.stderr == f"ci/build_image.sh: {said}; see --help\n"


def test_what_a_dockerfile_copies_is_not_kept_out() -> None:
    let_in = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert {"vllm_mindspore", "compat", "kernels", "locks", "pyproject.toml", "version_matrix.toml"} <= let_in
    assert all((ROOT / path).exists() for path in let_in)
