"""`vllm-mindspore serve` as far as it goes without an engine; `tests/e2e/test_processes.py` has the rest."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import time
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest

from vllm_mindspore.cli import serve


def run(command: str, site: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """With a folder that is looked at before all installed packages."""
    environment = {**os.environ, "PYTHONPATH": str(site)}
    return subprocess.run(
        [command, "serve", *arguments], capture_output=True, text=True, timeout=120, env=environment, cwd=site
    )


@pytest.mark.parametrize(
    ("raised", "said"),
    [
        (
            "ValueError(\"'aimv2' is already used by a Transformers config, pick another name.\")",
            "vLLM cannot be imported ('aimv2' is already used by a Transformers config, pick another name.): ",
        ),
        (
            "ImportError('libtorch.so:\\n cannot be opened')",
            "vLLM cannot be imported (libtorch.so: cannot be opened): ",
        ),
        ("AttributeError()", "vLLM cannot be imported (AttributeError): "),
    ],
)
def test_a_vllm_that_cannot_be_imported_is_one_sentence(command: str, tmp_path: Path, raised: str, said: str) -> None:
    (tmp_path / "vllm.py").write_text(f"raise {raised}\n")
    done = run(command, tmp_path, "x")
    assert done.returncode == 1
    assert done.stderr == f"vllm-mindspore serve: {said}run vllm-mindspore check-env to see why.\n"


@pytest.mark.parametrize("arguments", [[], ["--enforce-eager"], ["--port", "8000"]])
def test_a_model_must_be_named(command: str, tmp_path: Path, arguments: list[str]) -> None:
    (tmp_path / "vllm.py").write_text("raise ValueError('imported')\n")
    done = run(command, tmp_path, *arguments)
    assert done.returncode == 2
    assert done.stderr == "vllm-mindspore serve: MODEL is missing: name a folder or an id on the Hugging Face hub.\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["Qwen/Qwen2.5-0.5B-Instruct"],
        ["--port", "8000", "Qwen/Qwen2.5-0.5B-Instruct"],
        ["--model", "x"],
        ["--model=x"],
        ["--config", "x.yaml"],
        ["--port", "8000", "--help"],
        ["--help=ModelConfig"],
    ],
)
def test_vllms_own_ways_to_name_a_model_are_left_to_vllm(arguments: list[str]) -> None:
    assert serve._names_a_model(arguments)


@pytest.mark.parametrize("model", ["/nonexistent/model", "./model", "../model", "~/model"])
def test_a_folder_that_does_not_exist_is_said_at_once(command: str, tmp_path: Path, model: str) -> None:
    (tmp_path / "vllm.py").write_text("raise ValueError('imported')\n")
    done = run(command, tmp_path, model)
    assert done.returncode == 1
    assert done.stderr.startswith(f"vllm-mindspore serve: {model} does not exist: name the model's folder")


@pytest.mark.parametrize(
    ("function", "said"), [("create_engine_config", "no such dtype"), ("parse_args", "no such dtype"), ("step", None)]
)
def test_only_what_the_options_caused_loses_its_traceback(function: str, said: str | None) -> None:
    source = f"def {function}():\n    raise ValueError('no such\\n  dtype')\n{function}()"
    with pytest.raises(ValueError, match="no such") as error:
        exec(source, {})
    assert serve._sentence(error.value) == said


def keep_on(started: Event) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    started.set()
    time.sleep(120)


def test_an_engine_that_does_not_end_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve, "_SECONDS_TO_END", 0.2)
    context = multiprocessing.get_context("fork")
    started = context.Event()
    engine = context.Process(target=keep_on, args=(started,), daemon=True)
    engine.start()
    assert started.wait(60)
    serve._end_engines()
    engine.join(60)
    assert engine.exitcode == -signal.SIGKILL
