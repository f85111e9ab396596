"""Environment variables of vLLM, MindSpore, CANN and the Hugging Face hub: which are set, misspelt, wrong or against each other."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

from vllm_mindspore.cli.doctor.finding import Finding, Remedy, note, ok, problem
from vllm_mindspore.cli.doctor.surroundings import Surroundings
from vllm_mindspore.matrix import TRY_UNKNOWN, rows

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

NAME = "variables"
LOOKS_AT = "environment variables that are set, misspelt, wrong or against each other"
FOLLOWS = ()

_WHERE = "in the shell that starts vLLM"
_SECRET = re.compile(r"TOKEN(?!IZ)|KEY|SECRET|PASSW|CREDENTIAL", re.IGNORECASE)
_IN_URL = re.compile(r"(?<=://)[^/@\s]+@")
_LITERAL = re.compile(r"""["']((?:VLLM|HF|HUGGINGFACE|TRANSFORMERS)_[A-Z0-9_]+)["']""")
_CLOSE = 0.84
"""How alike two names are, as difflib counts, before one is taken for the other misspelt; more without the beginning of a known one."""
_CLOSER = 0.93
_LEVELS = ("CRITICAL", "ERROR", "WARNING", "INFO", "DEBUG")
_ONE_OF = {
    "VLLM_USE_V1": ("0", "1"),
    TRY_UNKNOWN: ("0", "1"),
    "VLLM_LOGGING_LEVEL": _LEVELS,
    "VLLM_WORKER_MULTIPROC_METHOD": ("fork", "spawn"),
    "GLOG_v": ("0", "1", "2", "3", "4"),
    "MS_DEV_JIT_SYNTAX_LEVEL": ("0", "2"),
    "ASCEND_GLOBAL_LOG_LEVEL": ("0", "1", "2", "3", "4"),
    "ASCEND_SLOG_PRINT_TO_STDOUT": ("0", "1"),
}
_WHOLE_NUMBERS = ("VLLM_CPU_KVCACHE_SPACE", "OMP_NUM_THREADS", "VLLM_PORT", "HCCL_CONNECT_TIMEOUT", "HCCL_EXEC_TIMEOUT")
_NOT_HERE = {
    "VLLM_ATTENTION_BACKEND": "chooses among vLLM's torch kernels, which are not used: vLLM will not start with it",
    "VLLM_TORCH_PROFILER_DIR": "asks for torch's profiler, which sees nothing of MindSpore: vLLM will not start with it",
    "MS_DEV_PRECOMPILE_ONLY": "makes MindSpore compile graphs and compute nothing",
    "MS_SIMULATION_LEVEL": "makes MindSpore pretend to compute",
    "MS_DRY_RUN": "makes MindSpore pretend to compute",
}
_TRUE = ("1", "ON", "YES", "TRUE")


def run(around: Surroundings) -> Iterator[Finding]:
    known = _known(around)
    ours = {name: value for name, value in sorted(around.environ.items()) if name in known or _begins(name)}
    found = [*_misspelt(around, known), *_wrong(around), *_against(around)]
    if ours:
        yield ok("Set: " + ", ".join(f"{name}={shlex.quote(masked(name, value))}" for name, value in ours.items()))
    elif not found:
        yield ok("None is set")
    yield from found


def masked(name: str, value: str) -> str:
    """A value without its secrets."""
    return "***" if value and _SECRET.search(name) else _IN_URL.sub("***@", value)


@cache
def _table() -> Any:
    return tomllib.loads((Path(__file__).parents[1] / "doctor" / "known_variables.toml").read_text(encoding="utf-8"))


def _begins(name: str) -> bool:
    return name.startswith(tuple(_table()["beginnings"]))


def _known(around: Surroundings) -> set[str]:
    table = _table()
    known = {*table["mindspore"].split(), *table["cann"].split(), *table["others"].split()}
    for package, file in (("vllm", "envs.py"), ("huggingface_hub", "constants.py"), ("transformers", "utils/hub.py")):
        folder = around.module_folder(package)
        if folder and (folder / file).is_file():
            known |= set(_LITERAL.findall((folder / file).read_text(encoding="utf-8", errors="replace")))
    return known


def _misspelt(around: Surroundings, known: set[str]) -> Iterator[Finding]:
    for name, value in sorted(around.environ.items()):
        if name in known or len(name) < 5:
            continue
        close = get_close_matches(name, known, n=1, cutoff=_CLOSE if _begins(name) else _CLOSER)
        close = close or [other for other in known if other.lower() == name.lower()]
        if not _begins(name) and not any(_begins(other) for other in close):
            continue  # DEVICE_IDS may be anybody's
        if close and close[0] not in around.environ:
            shown = shlex.quote(masked(name, value)) if masked(name, value) == value else f'"${name}"'
            rename = Remedy(f"export {close[0]}={shown}; unset {name}", _WHERE)
            yield problem(f"{name} is no variable that anybody reads: {close[0]} is", rename)
        elif _begins(name) and (around.version("vllm") or not name.startswith("VLLM_")):
            yield note(f"{name} is none that this vLLM, MindSpore, CANN or the hub's client is known to read")


def _wrong(around: Surroundings) -> Iterator[Finding]:
    for name, value in sorted(around.environ.items()):
        unset = Remedy(f"unset {name}", _WHERE)
        choices = _ONE_OF.get(name)
        if choices and (value.upper() if choices is _LEVELS else value) not in choices:
            yield problem(f"{name}={value} is none of {', '.join(choices)}", unset)
        if name in _WHOLE_NUMBERS and not value.isdecimal():
            yield problem(f"{name}={value} is no whole number", unset)
        if name == "OMP_NUM_THREADS" and value.isdecimal() and not int(value):
            yield problem(f"{name}={value} is no positive whole number", unset)
        if name in _NOT_HERE and value not in ("", "0"):
            yield problem(
                f"{name}={value} {_NOT_HERE[name]}", unset, {"mindspore"} if name.startswith("MS_") else {"vllm"}
            )
    modelscope = around.environ.get("VLLM_USE_MODELSCOPE", "")
    if modelscope.lower() not in ("", "0", "false", "true"):
        yield problem(
            f"VLLM_USE_MODELSCOPE={modelscope} is ignored by vLLM, which fetches models from ModelScope for True alone",
            Remedy("export VLLM_USE_MODELSCOPE=True", _WHERE),
        )
    engines = [row.engine for row in rows() if row.extra == around.row.extra]
    if around.environ.get("VLLM_USE_V1") == "1" and "V1" not in engines:
        text = f"VLLM_USE_V1=1 asks for an engine that vllm-mindspore does not have for vLLM {around.row.vllm}: it has {', '.join(engines)}"
        yield problem(text, Remedy("unset VLLM_USE_V1", _WHERE), {"vllm"})


def _against(around: Surroundings) -> Iterator[Finding]:
    """Variables that contradict each other."""
    environ = around.environ
    hub, transformers = environ.get("HF_HUB_OFFLINE"), environ.get("TRANSFORMERS_OFFLINE")
    if hub is not None and transformers is not None and (hub.upper() in _TRUE) != (transformers.upper() in _TRUE):
        yield problem(
            f"HF_HUB_OFFLINE={hub} and TRANSFORMERS_OFFLINE={transformers} say the opposite",
            Remedy("unset TRANSFORMERS_OFFLINE", _WHERE),
        )
    if environ.get("VLLM_USE_MODELSCOPE", "").lower() == "true":
        if environ.get("HF_ENDPOINT"):
            yield note("VLLM_USE_MODELSCOPE is set, so HF_ENDPOINT is not asked for models")
        if not around.version("modelscope"):
            yield problem(
                f"VLLM_USE_MODELSCOPE={environ['VLLM_USE_MODELSCOPE']}, and modelscope is not installed",
                Remedy("unset VLLM_USE_MODELSCOPE", _WHERE),
                {"vllm"},
            )
    old, new = environ.get("TRANSFORMERS_CACHE"), environ.get("HF_HUB_CACHE") or environ.get("HF_HOME")
    if old and new and not old.startswith(new):
        text = f"TRANSFORMERS_CACHE={old} and HF_HOME or HF_HUB_CACHE={new}: tokenizers and weights are looked for in different places"
        yield problem(text, Remedy("unset TRANSFORMERS_CACHE", _WHERE))
    visible, device = environ.get("ASCEND_RT_VISIBLE_DEVICES"), environ.get("DEVICE_ID")
    if visible is not None and device is not None and device.isdecimal() and int(device) >= len(visible.split(",")):
        text = f"DEVICE_ID={device} counts from 0 among the devices of ASCEND_RT_VISIBLE_DEVICES={visible}, which are fewer"
        yield problem(text, Remedy("unset DEVICE_ID", _WHERE), {"mindspore"})
    if environ.get("HCCL_IF_IP") and environ.get("HCCL_SOCKET_IFNAME"):
        yield note("HCCL_IF_IP is set, so HCCL does not read HCCL_SOCKET_IFNAME")
