"""The command line, as installed."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.conftest import ROOT
from vllm_mindspore import matrix
from vllm_mindspore.cli import main


def run(command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([command, *arguments], capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("name", ["serve", "check-env", "matrix", "demo-model"])
def test_each_command_explains_itself_with_an_example(command: str, name: str) -> None:
    done = run(command, name, "--help")
    assert done.returncode == 0
    assert "examples:" in done.stdout
    assert name in run(command, "--help").stdout


def test_the_matrix_is_printed(command: str) -> None:
    rows = json.loads(run(command, "matrix", "--json").stdout)
    assert [(row["vllm"], row["engine"]) for row in rows] == [(row.vllm, row.engine) for row in matrix.rows()]
    table = [line.split() for line in run(command, "matrix").stdout.splitlines()]
    assert ["0.9.1", "V1,", "V0", "vllm091"] in [line[:4] for line in table]


@pytest.mark.parametrize("readme", ["README.md", "README.zh-CN.md"])
def test_the_tables_of_the_readmes_are_those_of_the_matrix(command: str, readme: str) -> None:
    """But for the titles, which one of them translates."""
    releases, pairs = run(command, "matrix", "--markdown").stdout.strip().split("\n\n")
    text = (ROOT / readme).read_text(encoding="utf-8")
    for table in (releases, pairs):
        assert f"\n| --- {table.partition('| --- ')[2]}\n" in text
    for row in matrix.rows():
        for pair in row.pairs:
            assert (
                f"\n| {row.vllm} | {', '.join(pair.mindspore)} | {pair.device} | {', '.join(pair.cann)} | {pair.python} | {pair.verified} |"
                in pairs
            )


def test_a_reader_that_has_seen_enough_is_no_error(command: str) -> None:
    done = subprocess.run(["bash", "-c", f"{command} matrix | true"], capture_output=True, text=True, timeout=60)
    assert done.stderr == ""


def test_a_shell_completes_commands_and_flags(command: str) -> None:
    script = run(command, "--print-completion", "bash").stdout
    assert "demo-model" in script
    assert "--markdown" in script
    assert subprocess.run(["bash", "-n"], input=script, text=True, timeout=60).returncode == 0


def test_a_wrong_command_is_a_usage_error(command: str) -> None:
    done = run(command, "frobnicate")
    assert done.returncode == 2
    assert "invalid choice: 'frobnicate'" in done.stderr


def test_a_flag_is_given_in_full(command: str) -> None:
    done = run(command, "matrix", "--js")
    assert done.returncode == 2
    assert "unrecognized arguments: --js" in done.stderr


def test_the_probe_has_no_tables(command: str) -> None:
    done = run(command, "matrix", "--probe", "--markdown")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "vllm-mindspore matrix: --probe prints no tables: leave --markdown out, or take --json.\n"


def test_a_users_error_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "something").write_text("else")
    assert main.main(["demo-model", str(tmp_path)]) == 1
    assert capsys.readouterr().err.splitlines() == [
        f"vllm-mindspore demo-model: {tmp_path} holds something else than the demo model: name another folder."
    ]
