"""Whether models can be fetched."""

from __future__ import annotations

import socket
from typing import Any

from vllm_mindspore.cli.checks import hub


def test_a_hub_that_answers_is_fine(machine: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        endpoint = f"http://127.0.0.1:{server.getsockname()[1]}"
        secret = endpoint.replace("//", "//me:secret@")
        machine.environ = {"HF_ENDPOINT": secret, "HF_HOME": str(machine.root)}
        assert machine.is_fine(hub) == f"{endpoint.replace('//', '//***@')} can be reached; 0 models in the cache"


def test_a_hub_that_does_not_is_no_problem_by_itself(machine: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        endpoint = f"http://127.0.0.1:{server.getsockname()[1]}"
    (machine.root / "hub" / "models--me--mine").mkdir(parents=True)
    machine.environ = {"HF_ENDPOINT": endpoint, "HF_HOME": str(machine.root)}
    (found,) = machine.look(hub)
    assert found.status == "note"
    assert "cannot be reached (Connection refused)" in found.text
    assert found.text.endswith("1 model in the cache")


def test_a_name_that_is_looked_up_forever_takes_three_seconds(machine: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(hub, "_connect", lambda url: __import__("time").sleep(5) or "")
    monkeypatch.setattr(hub, "_SECONDS", 0.2)
    assert "no answer within 0.2 s" in machine.look(hub)[0].text


def test_meant_to_be_offline_is_fine(machine: Any) -> None:
    machine.environ = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(machine.root)}
    assert machine.is_fine(hub).startswith("Offline, as HF_HUB_OFFLINE says")
