"""Environment variables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import vllm_mindspore.cli.checks.variables as variables
from tests.conftest import ROOT


def test_right_variables_are_listed_without_their_secrets(machine: Any) -> None:
    machine.environ = {
        "VLLM_PLUGINS": "mindspore",
        "HF_TOKEN": "hf_abcdef",
        "HF_ENDPOINT": "https://me:secret@mirror.example",
        "GLOG_v": "3",
        "EDITOR": "vi",
    }
    text = machine.is_fine(variables)
    assert text == "Set: GLOG_v=3, HF_ENDPOINT='https://***@mirror.example', HF_TOKEN='***', VLLM_PLUGINS=mindspore"


def test_no_variable_is_fine(machine: Any) -> None:
    assert machine.is_fine(variables) == "None is set"


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("ASCEND_RT_VISIBLE_DEVICE", "ASCEND_RT_VISIBLE_DEVICES"),
        ("HCCL_SOCKET_IFNAMES", "HCCL_SOCKET_IFNAME"),
        ("VLLM_PLUGIN", "VLLM_PLUGINS"),
        ("MS_WORKERNUM", "MS_WORKER_NUM"),
        ("GLOG_V", "GLOG_v"),
        ("vllm_plugins", "VLLM_PLUGINS"),
        ("VLM_PLUGINS", "VLLM_PLUGINS"),
    ],
)
def test_a_misspelt_name_is_named_with_the_right_one(machine: Any, wrong: str, right: str) -> None:
    machine.environ = {wrong: "1"}
    (found,) = machine.problems(variables)
    assert found.text == f"{wrong} is no variable that anybody reads: {right} is"
    assert found.remedy.command == f"export {right}=1; unset {wrong}"


def test_other_peoples_variables_are_left_alone(machine: Any) -> None:
    machine.environ = dict.fromkeys(("DEVICE_IDS", "RANK", "WORLD_SIZE", "LOCAL_RANKS", "OMP_NUM_THREAD", "PATHS"), "1")
    assert machine.is_fine(variables) == "None is set"


def test_a_misspelt_secret_is_not_shown(machine: Any) -> None:
    machine.environ = {"HF_TOKENS": "hf_abcdef"}
    found = machine.look(variables)
    assert "hf_abcdef" not in str(found)
    assert found[-1].remedy.command == 'export HF_TOKEN="$HF_TOKENS"; unset HF_TOKENS'


def test_names_are_read_in_the_installed_vllm(machine: Any) -> None:
    machine.install_row()
    machine.environ = {"VLLM_SOMETHING_NEW": "1"}
    assert "VLLM_SOMETHING_NEW is none that" in machine.look(variables)[-1].text
    machine.write("site/vllm/__init__.py")
    machine.write("site/vllm/envs.py", 'environment_variables = {"VLLM_SOMETHING_NEW": lambda: 1}\n')
    machine.is_fine(variables)


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"VLLM_USE_V1": "yes"}, "VLLM_USE_V1=yes is none of 0, 1"),
        ({"VLLM_MINDSPORE_TRY_UNKNOWN_VLLM": "yes"}, "VLLM_MINDSPORE_TRY_UNKNOWN_VLLM=yes is none of 0, 1"),
        ({"OMP_NUM_THREADS": "0"}, "OMP_NUM_THREADS=0 is no positive whole number"),
        ({"VLLM_CPU_KVCACHE_SPACE": "4G"}, "VLLM_CPU_KVCACHE_SPACE=4G is no whole number"),
        ({"VLLM_ATTENTION_BACKEND": "XFORMERS"}, "VLLM_ATTENTION_BACKEND=XFORMERS chooses among vLLM's torch kernels"),
        ({"MS_DEV_PRECOMPILE_ONLY": "1"}, "makes MindSpore compile graphs and compute nothing"),
        ({"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "0"}, "say the opposite"),
        ({"VLLM_USE_MODELSCOPE": "True"}, "modelscope is not installed"),
        ({"TRANSFORMERS_CACHE": "/a", "HF_HOME": "/b"}, "are looked for in different places"),
        ({"ASCEND_RT_VISIBLE_DEVICES": "4,5", "DEVICE_ID": "2"}, "DEVICE_ID=2 counts from 0 among the devices"),
    ],
)
def test_wrong_values_and_contradictions_are_named(machine: Any, environ: dict[str, str], said: str) -> None:
    machine.environ = environ
    (found,) = machine.problems(variables)
    assert said in found.text
    assert found.remedy.command.startswith("unset ")


@pytest.mark.parametrize(
    "environ",
    [
        {"ASCEND_RT_VISIBLE_DEVICES": "4,5", "DEVICE_ID": "1"},
        {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "yes"},
    ],
    ids="-".join,
)
def test_variables_that_agree_are_fine(machine: Any, environ: dict[str, str]) -> None:
    machine.environ = environ
    machine.is_fine(variables)


@pytest.mark.parametrize("value", ["1", "yes"])
def test_what_vllm_does_not_take_for_modelscope_is_named(
    machine: Any, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    from vllm import envs

    monkeypatch.setenv("VLLM_USE_MODELSCOPE", value)
    assert not envs.environment_variables["VLLM_USE_MODELSCOPE"]()
    machine.environ = {"VLLM_USE_MODELSCOPE": value}
    (found,) = machine.problems(variables)
    assert found.text.startswith(f"VLLM_USE_MODELSCOPE={value} is ignored by vLLM")
    assert found.remedy.command == "export VLLM_USE_MODELSCOPE=True"


@pytest.mark.parametrize("value", ["0", "False", ""])
def test_modelscope_may_be_declined(machine: Any, value: str) -> None:
    machine.environ = {"VLLM_USE_MODELSCOPE": value}
    machine.is_fine(variables)


def test_an_engine_that_the_row_does_not_have_is_named(machine: Any) -> None:
    machine.environ = {"VLLM_USE_V1": "1"}
    (found,) = machine.problems(variables, "vllm073")
    assert "vllm-mindspore does not have for vLLM 0.7.3: it has V0" in found.text
    machine.is_fine(variables, "vllm091")


def test_our_own_variables_are_known(machine: Any) -> None:
    """Those that the sources of this package read."""
    import re

    sources = [*Path(ROOT, "vllm_mindspore").rglob("*.py"), *Path(ROOT, "compat").rglob("*.py")]
    ours = {name for file in sources for name in re.findall(r"VLLM_MINDSPORE_[A-Z_]+", file.read_text())}
    assert ours
    machine.environ = dict.fromkeys(ours, "1")
    machine.is_fine(variables)
