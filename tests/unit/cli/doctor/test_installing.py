"""The commands that install."""

from __future__ import annotations

import json
import shlex
from typing import Any

import pytest

from vllm_mindspore.cli.doctor.finding import Remedy
from vllm_mindspore.cli.doctor.installing import install_row, new_environment, reinstall_ourselves


def installed_from(machine: Any, url: str, **more: Any) -> None:
    machine.install("pip", "25.0")
    machine.install("vllm-mindspore", "0.1.0")
    machine.write("site/vllm_mindspore-0.1.0.dist-info/direct_url.json", json.dumps({"url": url, **more}))


def test_it_is_installed_again_from_the_checkout_that_is_still_there(machine: Any) -> None:
    installed_from(machine, machine.root.as_uri(), dir_info={})
    assert install_row(machine.around()) == Remedy(f"/env/bin/python -m pip install '{machine.root}[vllm091]'")


def test_it_is_installed_again_from_its_repository(machine: Any) -> None:
    installed_from(machine, "https://host.example/a.git", vcs_info={"vcs": "git", "commit_id": "1a2b3c"})
    assert reinstall_ourselves(machine.around()).command == (
        "/env/bin/python -m pip install --force-reinstall --no-deps "
        "'vllm-mindspore @ git+https://host.example/a.git@1a2b3c'"
    )


@pytest.mark.parametrize("remedy", [install_row, reinstall_ourselves, new_environment])
def test_a_person_has_to_find_what_was_moved(machine: Any, remedy: Any) -> None:
    installed_from(machine, "file:///no/such/checkout", dir_info={})
    found = remedy(machine.around())
    assert found.by_hand == "with the checkout or wheel that you installed from in place of PATH"
    assert "PATH" in found.command
    assert "vllm-mindspore" not in found.command


@pytest.mark.parametrize(("uv", "first"), [(False, "python3.11 -m venv .venv"), (True, "uv venv --python 3.11 .venv")])
def test_a_new_environment_is_made_with_what_is_there(machine: Any, uv: bool, first: str) -> None:
    checkout = machine.root / "it's mine"
    checkout.mkdir()
    installed_from(machine, checkout.as_uri(), dir_info={})
    if uv:
        machine.write("bin/uv").chmod(0o755)
        machine.environ = {"PATH": str(machine.root / "bin")}
    made, filled = new_environment(machine.around()).command.split(" && ")
    assert made == first
    assert shlex.split(filled)[-1] == f"{checkout}[vllm091]"
