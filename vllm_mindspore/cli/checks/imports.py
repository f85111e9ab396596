"""Whether vLLM, MindSpore and what they stand on can be imported, each in a process that may die of it."""

from __future__ import annotations

from collections.abc import Iterator

from vllm_mindspore.cli.doctor.finding import Finding, Remedy, ok, problem
from vllm_mindspore.cli.doctor.installing import install, install_row
from vllm_mindspore.cli.doctor.probing import Answers
from vllm_mindspore.cli.doctor.surroundings import Surroundings

NAME = "imports"
LOOKS_AT = "whether vLLM, MindSpore and what they stand on can be imported"
FOLLOWS = ("interpreter", "rivals", "packages", "files")

_LIBRARIES = ("numpy", "torch", "tokenizers", "transformers", "vllm")
_NEEDS = {"vllm": _LIBRARIES, "transformers": ("numpy", "torch", "tokenizers", "transformers")}


def run(around: Surroundings) -> Iterator[Finding]:
    asked = {
        **{name: libraries(around) for name in _LIBRARIES if around.version(name)},
        **({"mindspore": around.probes.ask("graph")} if around.version("mindspore") else {}),
    }
    fine = []
    for name, answers in asked.items():
        found = answers.parts.get(name)
        if found == {}:
            fine.append(name)
        elif found is not None:
            about = {name, *found["through"]}
            yield problem(f"import {name} fails: {found['error']}{_at(found['at'])}", _remedy(around, name), about)
        elif answers.timed_out:
            yield problem(
                f"import {name} gives {answers.error}: it hangs, or disk and processor are busy", longer(around), {name}
            )
        else:
            yield problem(
                f"import {name} ends Python: {answers.error}", _remedy(around, name), {name, *_NEEDS.get(name, ())}
            )
    if fine:
        yield ok(f"{', '.join(fine)} can be imported")


def libraries(around: Surroundings) -> Answers:
    """The probe that imports vLLM, which other checks ask as well."""
    return around.probes.ask("libraries", adapters=[around.row.adapter])


def longer(around: Surroundings) -> Remedy:
    """For what did not answer in time."""
    return Remedy(f"vllm-mindspore check-env --timeout {max(120, int(4 * around.probes.seconds))}", "to wait longer")


def _at(place: str) -> str:
    return f" ({place})" if place else ""


def _remedy(around: Surroundings, name: str) -> Remedy:
    if name == "vllm":
        return install_row(around)
    return install(around, f"{name}=={around.version(name)}", flags=["--force-reinstall", "--no-deps"])
