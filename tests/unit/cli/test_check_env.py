"""`check-env` as installed, in environments that were broken on purpose; `tests/conformance/test_check_env.py` has the right ones."""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from importlib.metadata import distribution
from pathlib import Path

import pytest

import vllm_mindspore
from tests.check_env import DOCUMENT, distribute, interrupted, problems, report, run
from vllm_mindspore.cli.check_env import SECONDS, add_arguments
from vllm_mindspore.cli.checks import CHECKS


def copy_of(site: Path, name: str, folder: Path) -> Path:
    """An installed package once more, by links to its files, that one of them may be taken out; give the copy's folder."""
    shutil.copytree(
        Path(str(distribution(name).locate_file(""))) / distribution(name)._path.name,
        site / distribution(name)._path.name,
    )  # type: ignore[attr-defined]
    shutil.copytree(folder, site / folder.name, copy_function=lambda source, target: Path(target).symlink_to(source))
    return site / folder.name


def test_kernels_that_are_not_there_are_named(command: str, tmp_path: Path) -> None:
    folder = copy_of(tmp_path, "vllm-mindspore", Path(vllm_mindspore.__file__).parent)
    (folder / "kernels" / "cpu" / "libvllm_mindspore_cpu.so").unlink()
    told = report(command, "--only", "files", "kernels", site=tmp_path)
    (name, text, _), (effect, sentence, cause) = problems(told)
    assert (name, effect, cause) == ("files", "kernels", "files")
    assert "libvllm_mindspore_cpu.so is missing" in text
    assert sentence.startswith("The CPU kernels are not built")


@pytest.mark.slow
def test_a_truncated_vllm_is_named_before_what_it_breaks(command: str, tmp_path: Path) -> None:
    folder = copy_of(tmp_path, "vllm", Path(str(distribution("vllm").locate_file("vllm"))))
    (folder / "config.py").unlink()
    told = report(command, "--only", "packages", "files", "imports", "drift", "platform-plugin", site=tmp_path)
    first, *rest = problems(told)
    assert first[:2] == ("files", "vllm 0.9.1 is not complete: vllm/config.py is missing")
    assert told["causes"] == ["files"]
    assert {name for name, _, _ in rest} == {"imports", "platform-plugin"}
    assert any("No module named 'vllm.config'" in text for _, text, _ in rest)


@pytest.mark.slow
def test_what_other_platform_plugins_do_is_shown(command: str, tmp_path: Path) -> None:
    """One raises, which vLLM swallows; one offers a second platform, which vLLM refuses, with the cause named first."""
    distribute(tmp_path, "raising", "1.0", "[vllm.platform_plugins]\nraising = other_platforms:fail\n")
    distribute(tmp_path, "second", "1.0", "[vllm.platform_plugins]\nsecond = other_platforms:offer\n")
    (tmp_path / "other_platforms.py").write_text(
        "def fail():\n    raise OSError('no such card')\n\ndef offer():\n    return 'vllm.platforms.cpu.CpuPlatform'\n"
    )
    told = report(command, "--only", "rivals", "platform-plugin", site=tmp_path)
    texts = [finding["text"] for check in told["checks"] for finding in check["findings"]]
    assert "Plugin raising of raising raises OSError: no such card, which vLLM swallows (other_platforms:2)" in texts
    *causes, (effect, sentence, follows) = problems(told)
    assert [(name, text.split(" brings")[0]) for name, text, _ in causes] == [
        ("rivals", "raising 1.0"),
        ("rivals", "second 1.0"),
    ]
    assert (effect, follows) == ("platform-plugin", "rivals")
    assert "Only one platform plugin can be activated" in sentence


@pytest.mark.slow
def test_what_keeps_our_own_plugin_out_is_shown(command: str, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\nif sys.argv[:1] == ['-c']:\n"
        "    import vllm_mindspore.matrix as matrix\n"
        "    def fail(): raise ValueError('The table is damaged.')\n"
        "    matrix.row_for_installed_vllm = fail\n"
    )
    told = report(command, "--only", "platform-plugin", site=tmp_path)
    ((_, text, _),) = problems(told)
    assert "vllm-mindspore cannot be vLLM's platform: The table is damaged." in text


@pytest.mark.slow
def test_a_mindspore_that_hangs_is_given_up_within_20_seconds(command: str, tmp_path: Path) -> None:
    (tmp_path / "mindspore.py").write_text("import time\ntime.sleep(600)\n")
    told = report(command, "--timeout", str(SECONDS), "--only", "graph", "kernels", "locale", site=tmp_path)
    assert told["seconds"] < 20
    assert {check["name"]: check["status"] for check in told["checks"]}["graph"] == "note"


def test_without_vllm_and_mindspore_there_is_still_a_report(command: str, tmp_path: Path) -> None:
    """As in an environment where only this package, and what it needs, is installed."""
    site = tmp_path / "site"
    for name in ("packaging", "rich", "pygments", "markdown-it-py", "mdurl", "shtab", "vllm-mindspore"):
        for file in distribution(name).files or []:
            if ".." not in file.parts and "__pycache__" not in file.parts:
                target = site / file
                target.parent.mkdir(parents=True, exist_ok=True)
                target.symlink_to(Path(str(file.locate())).resolve())
    code = "import sys; sys.path.insert(0, sys.argv.pop(1)); from vllm_mindspore.cli.main import main; sys.exit(main())"
    python = getattr(sys, "_base_executable", sys.executable)
    asked = [
        python,
        "-I",
        "-S",
        "-c",
        code,
        str(site),
        "check-env",
    ]
    done = subprocess.run(asked, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1, done.stderr
    assert "vLLM is not installed: install one of 0.6.6.post1, 0.7.3, 0.8.3, 0.9.1" in done.stdout
    assert "mindspore is not installed, vLLM 0.9.1 needs" in done.stdout
    assert "pip install" in done.stdout
    assert "This check failed itself" not in done.stdout


def test_something_is_said_at_once(command: str) -> None:
    with subprocess.Popen([command, "check-env", "--only", "imports"], stdout=subprocess.PIPE, text=True) as process:
        begin = time.monotonic()
        assert process.stdout is not None
        assert process.stdout.readline().startswith("vllm-mindspore ")
        assert time.monotonic() - begin < 5
        process.terminate()


def test_an_interrupted_report_leaves_no_process_behind(command: str, tmp_path: Path) -> None:
    (tmp_path / "mindspore.py").write_text(
        f"import os, time\nopen({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()))\ntime.sleep(600)\n"
    )
    asked = [command, "check-env", "--timeout", "600", "--only", "graph"]
    with subprocess.Popen(
        asked,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    ) as process:
        said = interrupted(process, tmp_path / "pid", 20)
    assert said == "vllm-mindspore check-env: interrupted\n"
    assert process.returncode == 130
    time.sleep(0.2)
    assert not Path("/proc", (tmp_path / "pid").read_text(), "stat").exists()


def test_another_row_can_be_asked_about(command: str) -> None:
    done = run(command, "--row", "vllm083", "--only", "packages")
    assert done.returncode == 1
    assert "✘ packages  vllm 0.9.1, the row vllm083 needs ==0.8.3" in done.stdout
    assert "[vllm083]'" in done.stdout


def test_checks_can_be_chosen(command: str) -> None:
    assert [check["name"] for check in report(command, "--only", "locale", "memory")["checks"]] == ["memory", "locale"]
    few = [check.NAME for check in CHECKS if check.NAME not in ("cores", "locale")]
    assert [check["name"] for check in report(command, "--skip", *few)["checks"]] == ["cores", "locale"]


def test_fix_prints_a_script_and_nothing_else(command: str) -> None:
    done = run(command, "--fix", "--only", "variables", "packages", "--row", "vllm083", VLLM_USE_V1="maybe")
    assert done.returncode == 1
    assert done.stdout.startswith("#!/bin/sh\n")
    assert "[vllm083]'" in done.stdout
    assert "# By hand, in the shell that starts vLLM:\n#   unset VLLM_USE_V1\n" in done.stdout
    assert "✘ variables" in done.stderr
    assert subprocess.run(["sh", "-n"], input=done.stdout, text=True).returncode == 0
    assert run(command, "--fix", "--only", "locale").stdout == ""


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--only", "nothing"], "invalid choice: 'nothing'"),
        (["--row", "vllm999"], "invalid choice: 'vllm999'"),
        (["--only", "hub", "--skip", "disk"], "not allowed with"),
        (["--skip", *(check.NAME for check in CHECKS)], "--skip leaves nothing to look at."),
        (["--apply"], "--apply runs what --fix prints: give both."),
        (["--fix", "--json"], "choose one"),
        (["--dtype", "float32"], "name it with --model"),
        (
            ["--only", "disk", "--model", "/nonexistent"],
            "--model is for the check model, which --only or --skip leaves out",
        ),
        (["--skip", "model", "--model", "x"], "--model is for the check model, which --only or --skip leaves out"),
        (["--fi", "--app"], "unrecognized arguments: --fi --app"),
        (["--model", "x", "--max-model-len", "-1"], "is not a positive whole number"),
    ],
)
def test_a_wrong_flag_is_a_usage_error(command: str, arguments: list[str], said: str) -> None:
    done = run(command, *arguments)
    assert done.returncode == 2
    assert said in done.stderr


def test_the_document_lists_every_check() -> None:
    told = re.findall(r"^\| `([a-z][a-z-]+)` \| (.+) \|$", DOCUMENT, re.MULTILINE)
    assert told == [(check.NAME, check.LOOKS_AT) for check in CHECKS]


def test_the_document_explains_every_flag() -> None:
    parser = argparse.ArgumentParser(add_help=False)
    add_arguments(parser)
    table = DOCUMENT.partition("| flag | what it does |")[2].partition("\n\n")[0]
    assert {flag for action in parser._actions for flag in action.option_strings} == set(
        re.findall(r"--[a-z-]+\b", table)
    )


def test_what_a_check_follows_comes_before_it() -> None:
    names = [check.NAME for check in CHECKS]
    for i, check in enumerate(CHECKS):
        assert set(check.FOLLOWS) <= set(names[:i]), check.NAME


def test_no_check_imports_what_it_looks_at() -> None:
    script = "import sys, vllm_mindspore.cli.check_env, vllm_mindspore.cli.main; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert not {"torch", "mindspore", "vllm", "numpy", "transformers", "huggingface_hub"} & set(done.stdout.split())


def test_a_script_mends_what_was_found_once_it_may(tmp_path: Path) -> None:
    """An environment that sees the packages of this one, and a second platform beside them."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path], check=True, timeout=60)
    (site,) = tmp_path.glob("lib/python*/site-packages")
    (site / "beside.pth").write_text(
        "\n".join(str(folder) for folder in map(Path, sys.path) if folder.name == site.name)
    )
    distribute(site, "vllm-ascend", "0.9.1")
    info = site / "vllm_ascend-0.9.1.dist-info"
    (info / "RECORD").write_text(
        "".join(f"{info.name}/{name},,\n" for name in ("METADATA", "entry_points.txt", "RECORD"))
    )
    asked = [
        tmp_path / "bin/python",
        "-m",
        "vllm_mindspore.cli.main",
        "check-env",
        "--only",
        "rivals",
        "--fix",
        "--apply",
    ]

    def answer(said: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(asked, input=said, capture_output=True, text=True, timeout=120, cwd=tmp_path)

    refused = answer("n\n")
    assert (refused.returncode, info.exists()) == (1, True)
    assert "✘ rivals  vllm-ascend 0.9.1 is installed" in refused.stderr
    assert "Nothing was changed." in refused.stderr
    line = shlex.join(map(str, asked))
    closed = subprocess.run(["bash", "-c", f"{line} <&-"], capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert (closed.returncode, info.exists()) == (1, True)
    assert closed.stderr.endswith("Run it? [y/N] Nothing was changed.\n")
    mended = answer("y\n")
    assert mended.returncode == 0, mended.stderr
    assert not info.exists()
    assert "✔ rivals" in mended.stdout
