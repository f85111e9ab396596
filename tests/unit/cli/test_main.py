"""The command line, as installed."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.check_env import interrupted
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


def test_the_tables_of_the_readme_are_those_of_the_matrix(command: str) -> None:
    releases, pairs = run(command, "matrix", "--markdown").stdout.strip().split("\n\n")
    text = (ROOT / "README.md").read_text(encoding="utf-8")
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


PRINTING = ["matrix", "check-env --only locale", "check-env --json --only locale", "--print-completion bash"]


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("asked", PRINTING)
def test_what_cannot_be_printed_is_one_sentence(command: str, asked: str, unbuffered: str) -> None:
    def said(redirection: str) -> tuple[int, str]:
        line = ["bash", "-c", f"{command} {asked} {redirection}"]
        environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
        done = subprocess.run(line, capture_output=True, text=True, timeout=60, env=environment)
        return done.returncode, done.stderr

    name = f"vllm-mindspore {asked.split()[0]}" if asked[0] != "-" else "vllm-mindspore"
    full = f"{name}: standard output cannot be written (No space left on device).\n"
    assert said(">/dev/full") == (1, full)
    assert said(">&-") == (1, f"{name}: standard output is closed: redirect it to /dev/null to see nothing of it.\n")
    assert said("| true")[1] == ""


def test_a_working_directory_that_is_gone_is_named(command: str, tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    line = f"cd {tmp_path}/gone && rmdir {tmp_path}/gone && {command} check-env --only locale"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "vllm-mindspore check-env: the folder that it was started in is gone: start it in another one."
    ]


@pytest.mark.parametrize(
    ("module", "asked"),
    [
        ("vllm_mindspore.cli.check_env", ["check-env"]),
        ("vllm", ["serve", "x"]),
        ("transformers", ["demo-model", "folder"]),
        ("vllm_mindspore.cli.checks.drift", ["matrix", "--probe"]),
    ],
)
def test_an_interrupted_command_says_so(command: str, tmp_path: Path, module: str, asked: list[str]) -> None:
    """At the import of a module, which is where most of the time is spent."""
    (tmp_path / "sitecustomize.py").write_text(
        "import sys, time\n"
        "class Slow:\n"
        "    def find_spec(self, name, *rest):\n"
        f"        if name == {module!r}:\n"
        f"            open({str(tmp_path / 'reached')!r}, 'w').close()\n"
        "            time.sleep(60)\n"
        "sys.meta_path.insert(0, Slow())\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    with subprocess.Popen(
        [command, *asked], stderr=subprocess.PIPE, text=True, env=environment, cwd=tmp_path
    ) as process:
        said = interrupted(process, tmp_path / "reached", 60)
    assert said.splitlines()[-1] == f"vllm-mindspore {asked[0]}: interrupted"
    assert "Traceback" not in said
    assert process.returncode == 130
    left = {path.name for path in tmp_path.iterdir()} - {"__pycache__"}
    assert left == {"reached", "sitecustomize.py"}


def test_a_shell_completes_commands_and_flags(command: str) -> None:
    script = run(command, "--print-completion", "bash").stdout
    assert "demo-model" in script
    assert "--markdown" in script
    for argument in ("serve_pos_0", "check_env___model", "demo_model_pos_0"):
        assert f"_{argument}_COMPGEN=_shtab_compgen_dirs" in script
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
