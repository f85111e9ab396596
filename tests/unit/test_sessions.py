"""What continuous integration runs: the sessions of nox, and the jobs that call them, against the matrix."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import ROOT
from vllm_mindspore.matrix import rows

JOBS: dict[str, Any] = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))["jobs"]
CALL = re.compile(r"make test ROW=(\S+|\$\{\{ matrix\.row \}\})")


@pytest.fixture(scope="module")
def sessions() -> dict[str, str]:
    """Name -> description."""
    nox = Path(sys.executable).with_name("nox")
    done = subprocess.run(
        [nox, "-f", ROOT / "ci/noxfile.py", "--list", "--json"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return {session["session"]: session["description"] for session in json.loads(done.stdout)}


def test_every_pair_that_continuous_integration_runs_has_its_session(sessions: dict[str, str]) -> None:
    expected = {}
    for row in rows():
        engines = ", ".join(other.engine for other in rows() if other.vllm == row.vllm)
        expected[row.extra] = f"vLLM {row.vllm}: {engines}"
        for pair in row.pairs:
            if pair.verified == "cpu" and pair.shown:
                for mindspore in pair.mindspore:
                    name = f"{row.extra}-mindspore-{mindspore}"
                    expected[name] = f"vLLM {row.vllm} with MindSpore {mindspore}: generation"
    assert sessions == expected


def test_the_workflow_runs_every_session_on_the_cpu(sessions: dict[str, str]) -> None:
    job = JOBS["cpu"]
    assert job["strategy"]["matrix"]["row"] == list(sessions)
    assert [CALL.fullmatch(step["run"])[1] for step in job["steps"] if "run" in step] == ["${{ matrix.row }}"]


def test_the_job_for_ascend_is_labelled_and_started_by_hand(sessions: dict[str, str]) -> None:
    job = JOBS["ascend"]
    assert "ascend" in job["runs-on"]
    assert job["if"].startswith("github.event_name == 'workflow_dispatch' && ")
    (called,) = (CALL.fullmatch(step["run"])[1] for step in job["steps"] if "run" in step)
    assert called in sessions
