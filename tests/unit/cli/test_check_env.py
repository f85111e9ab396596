"""`check-env`: each check in an environment that is right and in one that is wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from vllm_mindspore.cli import check_env
from vllm_mindspore.cli.checks import device, finding, kernels, packages, platform_plugin
from vllm_mindspore.cli.checks.finding import Finding, Probe


def problems(findings: list[Finding]) -> list[Finding]:
    return [found for found in findings if found.status == "problem"]


@pytest.mark.slow
def test_a_right_environment_is_found_right(command: str) -> None:
    done = subprocess.run([command, "check-env", "--json"], capture_output=True, text=True, timeout=600)
    report = json.loads(done.stdout)
    assert done.returncode == 0, report
    assert report["healthy"]
    assert report["schema"] == 1
    assert {found["check"] for found in report["findings"]} == set(check_env.CHECKS)
    texts = "\n".join(found["text"] for found in report["findings"])
    assert "vLLM 0.9.1: adapter v0_9_1, engine V1" in texts
    assert "vLLM is what adapter v0_9_1 was written for" in texts
    assert "a right answer" in texts
    assert "vLLM picks the platform vllm_mindspore.compat.v0_9_1.platform.MindSporePlatform" in texts


@pytest.mark.slow
def test_what_keeps_the_plugin_out_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import vllm_mindspore.matrix as matrix\n"
        "def fail(): raise ValueError('No row for vLLM 9.9.9.')\n"
        "matrix.row_for_installed_vllm = fail\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (found,) = platform_plugin.run()
    assert found.status == "problem"
    assert "No row for vLLM 9.9.9." in found.text


def test_a_variable_that_keeps_the_plugin_out_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_PLUGINS", "other")
    assert platform_plugin.run() == [
        Finding("problem", "VLLM_PLUGINS='other' keeps vLLM from loading this plugin", "unset VLLM_PLUGINS")
    ]


def test_another_platform_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform_plugin, "probe", lambda code: Probe("vllm.platforms.cpu.CpuPlatform", ""))
    assert "vllm.platforms.cpu.CpuPlatform instead of this plugin's" in platform_plugin.run()[0].text


def test_all_conflicting_packages_are_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = {"vllm": "0.9.1", "transformers": "5.1.0", "numpy": "2.2.0", "mindspore": "2.7.1"}
    monkeypatch.setattr(packages, "version", lambda name: wrong.get(name, "1"))
    assert [(found.text, found.remedy) for found in problems(packages.run())] == [
        ("numpy 2.2.0, vLLM 0.9.1 needs <2", "pip install 'numpy<2'"),
        (
            "transformers 5.1.0, vLLM 0.9.1 needs >=4.51.1,<4.54",
            "pip install 'transformers>=4.51.1,<4.54'",
        ),
    ]


def test_a_missing_vllm_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from vllm_mindspore import matrix

    def missing(name: str) -> str:
        raise matrix.PackageNotFoundError(name)

    monkeypatch.setattr(matrix, "version", missing)
    first = packages.run()[0]
    assert first.text.startswith("vLLM is not installed")
    assert first.remedy == "pip install 'vllm-mindspore[vllm091]'"


def test_kernels_that_are_missing_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import vllm_mindspore.kernels.cpu.library as library\nlibrary._FILE = 'libnot_there.so'\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (found,) = kernels.run()
    assert found.text.startswith("The CPU kernels are not built")
    assert found.remedy == "pip install --force-reinstall --no-deps vllm-mindspore"


def test_a_mindspore_that_does_not_import_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mindspore.py").write_text("raise ImportError('libgomp is missing')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    found = device.run()[0]
    assert found.status == "problem"
    assert "libgomp is missing" in found.text


def test_a_probe_that_crashes_or_hangs_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    assert finding.probe("import os; os.abort()") == Probe(None, "exit code -6")
    monkeypatch.setattr(finding, "_SECONDS", 1)
    assert finding.probe("import time; time.sleep(30)") == Probe(None, "no answer within 1 s")


def test_problems_are_printed_with_their_remedy_and_change_the_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(check_env, "CHECKS", ("packages",))
    monkeypatch.setattr(packages, "run", lambda: [Finding("ok", "fine"), Finding("problem", "bad", "mend")])
    assert check_env.run(as_json=False) == 1
    assert capsys.readouterr().out == "✔ fine\n✘ bad\n    mend it: mend\n"
    monkeypatch.setattr(packages, "run", lambda: [Finding("note", "hm")])
    assert check_env.run(as_json=False) == 0


def test_the_command_is_quick_to_say_something() -> None:
    """No check imports what it looks at."""
    script = "import sys, vllm_mindspore.cli.check_env, vllm_mindspore.cli.main; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert not {"torch", "mindspore", "vllm", "numpy"} & set(done.stdout.split())
