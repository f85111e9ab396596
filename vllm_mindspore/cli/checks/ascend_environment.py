"""Whether CANN's set_env.sh was sourced, and whether what it sets belongs together. Nobody ran this on an NPU."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from vllm_mindspore.cli.doctor import ascend
from vllm_mindspore.cli.doctor.finding import Finding, Remedy, note, ok, problem
from vllm_mindspore.cli.doctor.surroundings import Surroundings

NAME = "ascend-environment"
LOOKS_AT = "LD_LIBRARY_PATH and what else CANN's set_env.sh sets"
FOLLOWS = ("ascend-cann",)

_WHERE = "in the shell that starts vLLM"
_PARTS = {
    "PATH": "/compiler/ccec_compiler/bin",
    "PYTHONPATH": "opp/built-in/op_impl/ai_core/tbe",
    "ASCEND_OPP_PATH": "/opp",
}
"""What MindSpore looks for in each variable."""
_HAL = "libascend_hal.so"


def run(around: Surroundings) -> Iterator[Finding]:
    folder = ascend.toolkit(around)
    if folder is None:
        return
    script = ascend.set_env(folder)
    source = (
        Remedy(f"source {script}", _WHERE)
        if script
        else Remedy(f"ls {folder}", "and install CANN again: it has no set_env.sh")
    )
    found = [*_unset(around, folder, source), *_strange(around, folder, source), *_driver(around)]
    yield from found
    if not found:
        yield ok(f"The variables are those of {script or folder}")


def _unset(around: Surroundings, folder: Path, source: Remedy) -> Iterator[Finding]:
    missing = [variable for variable, part in _PARTS.items() if part not in around.environ.get(variable, "")]
    libraries = [Path(place) for place in around.environ.get("LD_LIBRARY_PATH", "").split(":") if place]
    if not any(place.resolve().is_relative_to(folder.resolve()) for place in libraries):
        missing.append("LD_LIBRARY_PATH")
    if missing:
        yield problem(f"CANN's set_env.sh was not sourced: {', '.join(missing)} name nothing of it", source, {"cann"})


def _strange(around: Surroundings, folder: Path, source: Remedy) -> Iterator[Finding]:
    """Paths that are not there or of another CANN."""
    for variable in ("ASCEND_HOME_PATH", "ASCEND_TOOLKIT_HOME", "ASCEND_OPP_PATH", "ASCEND_AICPU_PATH"):
        value = around.environ.get(variable)
        if not value:
            continue
        if not Path(value).is_dir():
            yield problem(f"{variable}={value} is not there", source, {"cann"})
        elif not Path(value).resolve().is_relative_to(folder.resolve()):
            yield problem(f"{variable}={value} is of another CANN than {folder}", source, {"cann"})
    gone = [
        place
        for place in around.environ.get("LD_LIBRARY_PATH", "").split(":")
        if "scend" in place and not Path(place).is_dir()
    ]
    if gone:
        yield note(
            f"LD_LIBRARY_PATH names {', '.join(gone)}, which is not there: it was set for another machine or CANN"
        )


def _driver(around: Surroundings) -> Iterator[Finding]:
    folder = ascend.driver(around) / "lib64" / "driver"
    listed = around.environ.get("LD_LIBRARY_PATH", "").split(":")
    for file in (around.root / "etc" / "ld.so.conf.d").glob("*.conf"):
        listed += file.read_text(errors="replace").split()
    if (folder / _HAL).is_file() and not any((Path(place) / _HAL).is_file() for place in listed if place):
        more = Remedy(f"export LD_LIBRARY_PATH={folder}:{folder.parent / 'common'}:$LD_LIBRARY_PATH", _WHERE)
        yield problem(f"{_HAL} of the driver is in no folder of LD_LIBRARY_PATH", more, {"cann"})
