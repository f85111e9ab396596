"""What people and machines get to read."""

from __future__ import annotations

import io
import subprocess
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from vllm_mindspore.cli import check_env
from vllm_mindspore.cli.doctor.examination import Diagnosis, Examined
from vllm_mindspore.cli.doctor.finding import Remedy, note, ok, problem
from vllm_mindspore.cli.doctor.report import TextReport
from vllm_mindspore.cli.doctor.script import commands, script

PIP = Remedy("pip install 'numpy<2' 'transformers<5'")
EXAMINED = [
    Examined(
        "packages",
        "packages",
        0.1,
        tuple(Diagnosis(problem(text, PIP)) for text in ("numpy 2.2.0", "transformers 5.1.0")),
    ),
    Examined(
        "variables",
        "variables",
        0.1,
        (Diagnosis(problem("VLLM_PLUGINS=''", Remedy("unset VLLM_PLUGINS", "in the shell"))),),
    ),
    Examined(
        "imports", "imports", 0.1, (Diagnosis(problem("import vllm fails", Remedy("pip install vllm")), "packages"),)
    ),
    Examined("hub", "the hub", 0.1, (Diagnosis(note("offline")),)),
    Examined("kernels", "kernels", 0.1, (Diagnosis(ok("avx2 [1, 2]")),)),
]


def text(encoding: str = "utf-8") -> str:
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    report = TextReport(Console(file=stream), 9)
    for one in EXAMINED:
        report.check(one)
    report.tail(EXAMINED, 7)
    stream.flush()
    written: Any = stream.buffer
    return str(written.getvalue().decode(encoding))


def test_the_report_reads_like_this() -> None:
    assert (
        text()
        == """\
✘ packages   numpy 2.2.0
✘            transformers 5.1.0
             mend it: pip install 'numpy<2' 'transformers<5'
✘ variables  VLLM_PLUGINS=''
             mend it (in the shell): unset VLLM_PLUGINS
✘ imports    import vllm fails (follows from packages)
! hub        offline
✔ kernels    avx2 [1, 2]

Mend first:
  packages   numpy 2.2.0, and 1 more
             and look again at imports, which may follow from it
  variables  VLLM_PLUGINS=''
vllm-mindspore check-env --fix prints a script that does it. (7 s)
"""
    )


def test_a_sentence_goes_on_without_its_full_stop() -> None:
    stream = io.StringIO()
    texts = ("vLLM is not installed: install one.", "numpy is not installed")
    found = [Examined("packages", "packages", 0.1, tuple(Diagnosis(problem(text, PIP)) for text in texts))]
    TextReport(Console(file=stream), 8).tail(found, 7)
    assert "  packages  vLLM is not installed: install one, and 1 more\n" in stream.getvalue()


def test_a_terminal_without_utf8_gets_letters() -> None:
    letters = text("ascii")
    assert letters == text().replace("✘", "X").replace("✔", "v")
    assert letters.startswith("X packages   numpy 2.2.0\nX            transformers")


def test_the_script_mends_each_cause_once_and_says_what_is_left_to_do() -> None:
    assert (
        script(EXAMINED)
        == """\
#!/bin/sh
# Made by vllm-mindspore check-env --fix.
set -e

# packages: numpy 2.2.0
# packages: transformers 5.1.0
pip install 'numpy<2' 'transformers<5'

# variables: VLLM_PLUGINS=''
# By hand, in the shell:
#   unset VLLM_PLUGINS
"""
    )
    assert subprocess.run(["sh", "-n"], input=script(EXAMINED), text=True).returncode == 0


def broken(file: Path, command: str = "touch") -> list[Examined]:
    return [Examined("packages", "packages", 0.1, (Diagnosis(problem("not mended", Remedy(f"{command} {file}"))),))]


@pytest.mark.parametrize(("answer", "made"), [("y\n", True), ("\n", False), ("", False), ("no\n", False)])
def test_the_script_is_run_only_after_a_yes(
    answer: str, made: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(answer))
    code = check_env._fix(broken(tmp_path / "mended"), True, ["test", "-e", str(tmp_path / "mended")])
    assert (tmp_path / "mended").exists() is made
    assert code == (0 if made else 1)
    shown = capsys.readouterr().err
    assert f"touch {tmp_path}/mended" in shown
    assert ("Nothing was changed." in shown) is not made


def test_a_command_that_fails_stops_the_script(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    examined = [*broken(tmp_path / "a", "false"), *broken(tmp_path / "b")]
    assert check_env._fix(examined, True, ["true"]) == 1
    assert not (tmp_path / "b").exists()
    assert "A command failed with exit code 1" in capsys.readouterr().err


def test_what_only_a_person_can_do_is_not_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert commands(EXAMINED[1:2]) == {}
    assert check_env._fix(EXAMINED[1:2], True, ["true"]) == 1
    assert "Nothing of this can be mended by a script" in capsys.readouterr().err
