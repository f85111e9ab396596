"""On PyPI the name of this package is that of its forerunner, so it is installed again from where it came from and never by its bare name."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from vllm_mindspore import origin

GIT = {"vcs": "git", "requested_revision": "main", "commit_id": "1a2b3c"}


@pytest.mark.parametrize(
    ("told", "wanted"),
    [
        (
            {"url": "https://host.example/a.git", "vcs_info": GIT},
            "vllm-mindspore[vllm091] @ git+https://host.example/a.git@1a2b3c",
        ),
        (
            {"url": "ssh://git@host.example/a.git", "vcs_info": GIT, "subdirectory": "b"},
            "vllm-mindspore[vllm091] @ git+ssh://git@host.example/a.git@1a2b3c#subdirectory=b",
        ),
        (
            {"url": "https://host.example/a.whl", "archive_info": {}},
            "vllm-mindspore[vllm091] @ https://host.example/a.whl",
        ),
    ],
)
def test_what_came_from_a_url_comes_from_it_again(told: dict[str, Any], wanted: str) -> None:
    source = origin.origin(json.dumps(told))
    assert source is not None
    assert origin.requirement(source, "vllm091") == wanted


def test_what_came_from_a_file_comes_from_it_while_it_is_there(tmp_path: Path) -> None:
    wheel = tmp_path / "a wheel.whl"
    told = json.dumps({"url": wheel.as_uri(), "archive_info": {}})
    assert origin.origin(told) is None
    wheel.touch()
    assert origin.origin(told) == str(wheel)
    assert origin.requirement(str(wheel), "vllm091") == f"{wheel}[vllm091]"
    assert origin.requirement(str(wheel)) == str(wheel)


def test_a_sentence_has_the_command_or_says_what_to_fill_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(origin, "origin", lambda recorded: f"{tmp_path}")
    assert origin.install_again("vllm091") == f"pip install '{tmp_path}[vllm091]'"
    monkeypatch.setattr(origin, "origin", lambda recorded: None)
    assert origin.install_again("vllm091") == (
        "pip install 'PATH[vllm091]', with the checkout or wheel that you installed from in place of PATH"
    )


def test_no_source_and_no_document_installs_the_bare_name() -> None:
    bare = re.compile(r"pip install[^\n`]*[ '\"]vllm-mindspore(\[|['\"\s`]|$)", re.MULTILINE)
    assert bare.search("pip install --no-deps vllm-mindspore")
    assert bare.search("pip install 'vllm-mindspore[vllm091]'")
    files = [
        *(file for folder in ("vllm_mindspore", "compat", "kernels") for file in (ROOT / folder).rglob("*.py")),
        *ROOT.glob("*.md"),
        *(ROOT / "docs").glob("*.md"),
    ]
    assert [str(file) for file in files if bare.search(file.read_text(encoding="utf-8"))] == []
