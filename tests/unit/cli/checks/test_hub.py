"""Whether models can be fetched."""

from __future__ import annotations

import os
import socket
from typing import Any

import pytest
import requests

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


@pytest.mark.parametrize(
    ("environ", "through"),
    [
        ({"HTTP_PROXY": "http://127.0.0.1:{port}"}, True),
        ({"http_proxy": "127.0.0.1:{port}"}, True),
        ({"ALL_PROXY": "me:secret@127.0.0.1:{port}"}, True),
        ({"HTTP_PROXY": "127.0.0.1:1", "http_proxy": "127.0.0.1:{port}"}, True),
        ({"HTTPS_PROXY": "127.0.0.1:{port}"}, False),
        ({"HTTP_PROXY": "127.0.0.1:{port}", "http_proxy": ""}, False),
        ({"HTTP_PROXY": "127.0.0.1:{port}", "NO_PROXY": "localhost, .invalid"}, False),
        ({"ALL_PROXY": "127.0.0.1:{port}", "no_proxy": "*"}, False),
    ],
    ids=str,
)
def test_the_hub_is_asked_as_its_client_asks(
    machine: Any, monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], through: bool
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        environ = {name: value.format(port=server.getsockname()[1]) for name, value in environ.items()}
        machine.environ = {"HF_ENDPOINT": "http://hub.invalid:8080", "HF_HOME": str(machine.root), **environ}
        (found,) = machine.look(hub)
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    chosen = requests.utils.select_proxy(
        "http://hub.invalid:8080/", requests.utils.get_environ_proxies("http://hub.invalid:8080/")
    )
    assert bool(chosen) == through
    if through:
        assert found.text == "http://hub.invalid:8080 can be reached through the proxy 127.0.0.1; 0 models in the cache"
    else:
        assert found.text.startswith("http://hub.invalid:8080 cannot be reached (")


def test_a_name_that_is_looked_up_forever_takes_three_seconds(machine: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(hub, "_connect", lambda url: __import__("time").sleep(5) or "")
    monkeypatch.setattr(hub, "_SECONDS", 0.2)
    assert "no answer within 0.2 s" in machine.look(hub)[0].text


def test_meant_to_be_offline_is_fine(machine: Any) -> None:
    machine.environ = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(machine.root)}
    assert machine.is_fine(hub).startswith("Offline, as HF_HUB_OFFLINE says")
