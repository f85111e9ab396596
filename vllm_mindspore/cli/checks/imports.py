"""Whether vLLM, MindSpore and what they stand on can be imported, each in a process that may die of it."""

from __future__ import annotations

from collections.abc import Iterator

from vllm_mindspore.cli.doctor.finding import Finding, Remedy, ok, problem
from vllm_mindspore.cli.doctor.installing import install, install_row
from vllm_mindspore.cli.doctor.probing import Answers
from vllm_mindspore.cli.doctor.surroundings import Surroundings

NAME = "imports"
LOOKS_AT = "whether vLLM, MindSpore and what they stand on can be imported"
FOLLOWS = ("interpreter", "rivals", "packages", "files", "memory", "disk", "limits")

_LIBRARIES = ("numpy", "torch", "tokenizers", "transformers", "vllm")
"""In the order in which the probe imports them."""


def run(around: Surroundings) -> Iterator[Finding]:
    asked = {
        **{name: libraries(around) for name in _LIBRARIES if around.version(name)},
        **({"mindspore": around.probes.ask("graph")} if around.version("mindspore") else {}),
    }
    fine = []
    failed: dict[str, set[str]] = {}  # what the failure of each is about
    for name, answers in asked.items():
        found = answers.parts.get(name)
        if found == {}:
            fine.append(name)
            continue
        about = {name, *(_before(name) if found is None else found["through"])}
        causes = [failed[other] for other in about if other in failed]
        failed[name] = about.union(*causes)
        yield _failure(around, name, answers, failed[name], bool(causes))
    if fine:
        yield ok(f"{', '.join(fine)} can be imported")


def _before(name: str) -> tuple[str, ...]:
    return _LIBRARIES[: _LIBRARIES.index(name)] if name in _LIBRARIES else ()


def _failure(around: Surroundings, name: str, answers: Answers, about: set[str], follows: bool) -> Finding:
    found = answers.parts.get(name)
    if found is not None:
        text, remedy = f"import {name} fails: {found['error']}{_at(found['at'])}", _remedy(around, name)
    elif answers.timed_out:
        text = f"import {name} gives {answers.error}: it hangs, or disk and processor are busy"
        remedy = longer(around)
    else:
        how = "was not come to" if follows else "ends Python"
        text, remedy = f"import {name} {how}: {answers.error}", _remedy(around, name)
    return problem(text, remedy, about, follows)


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
