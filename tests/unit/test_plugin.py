"""What vLLM calls while it is being imported: quick, and never silent about a failure."""

from __future__ import annotations

import logging
import subprocess
import sys
import types

import pytest

from vllm_mindspore import plugin


def test_it_loads_nothing_heavy() -> None:
    script = (
        "import sys, vllm_mindspore.plugin as plugin; plugin.platform();"
        "print(sorted({'torch', 'numpy', 'mindspore', 'vllm', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]", done.stderr


def test_the_platform_class_belongs_to_the_adapter_of_the_installed_vllm() -> None:
    assert plugin.platform() == "vllm_mindspore.compat.v0_9_1.platform.MindSporePlatform"


def test_a_failure_is_logged_and_stops_vllm(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """vLLM swallows what a platform plugin raises; so the name it gets back leads to the error instead."""
    broken = types.ModuleType("vllm_mindspore.matrix")
    broken.row_for_installed_vllm = lambda: (_ for _ in ()).throw(ValueError("vLLM 0.1.0 is too old."))  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "vllm_mindspore.matrix", broken)
    # Whatever vLLM's or another test's logging did to it: the capturing handler hears each record once, by way of the root logger.
    logger = logging.getLogger("vllm_mindspore")
    monkeypatch.setattr(logger, "handlers", [])
    monkeypatch.setattr(logger, "propagate", True)

    module, _, name = plugin.platform().rpartition(".")
    plugin.platform()

    assert [record.levelname for record in caplog.records] == ["ERROR"], "vLLM asks twice, the user is told once"
    assert "vLLM 0.1.0 is too old. Run `vllm-mindspore check-env`" in caplog.text
    with pytest.raises(RuntimeError, match=r"vLLM 0\.1\.0 is too old\. Run `vllm-mindspore check-env`"):
        getattr(sys.modules[module], name)()


def test_vllm_cannot_swallow_what_fails_in_the_general_plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    """It logs an `Exception` and goes on; vLLM 0.6.6 then runs without our platform."""
    broken = types.ModuleType("vllm_mindspore.matrix")
    broken.row_for_installed_vllm = lambda: (_ for _ in ()).throw(ValueError("vLLM 0.1.0 is too old."))  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "vllm_mindspore.matrix", broken)
    with pytest.raises(BaseException, match=r"vLLM 0\.1\.0 is too old\. Run `vllm-mindspore check-env`") as failure:
        plugin.general()
    assert not isinstance(failure.value, Exception)
