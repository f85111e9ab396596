"""The installed packages against the matrix row and against what they ask of each other, all conflicts at once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from vllm_mindspore.cli.doctor.finding import Finding, note, ok, problem
from vllm_mindspore.cli.doctor.installing import OURSELVES, install, install_row
from vllm_mindspore.cli.doctor.surroundings import Surroundings
from vllm_mindspore.matrix import VERIFIED, Pair

NAME = "packages"
LOOKS_AT = "vLLM, MindSpore and what goes with them, against version_matrix.toml and against each other"
FOLLOWS = ("interpreter", "rivals")

_THAT_ASK = ("vllm", "mindspore", "torch", "transformers", "tokenizers", OURSELVES)
"""Whose own requirements are looked at, each behind those that ask for it."""
_NAMED = ("vllm", "mindspore", "torch", "transformers", "tokenizers", "numpy", "protobuf")


@dataclass(frozen=True)
class _Demand:
    name: str
    specifier: SpecifierSet
    by: str


@dataclass(frozen=True)
class _Conflict:
    name: str
    text: str
    requirement: str
    """That satisfies all who ask for it."""


def run(around: Surroundings) -> Iterator[Finding]:
    conflicts = _conflicts(around)
    yield ok(", ".join(f"{name} {around.version(name) or 'missing'}" for name in _NAMED))
    # vLLM and MindSpore bring the rest with them.
    whole = around.wanted.obstacle or any(conflict.name in ("vllm", "mindspore") for conflict in conflicts)
    remedy = install_row(around) if whole else install(around, *(conflict.requirement for conflict in conflicts))
    if around.wanted.obstacle:
        yield problem(around.wanted.obstacle, remedy, {"vllm"})
    for conflict in conflicts:
        yield problem(conflict.text, remedy, {conflict.name})
    pair = _pair_on_cpu(around)
    if pair and pair.shown:
        how = {"cpu": "part of the test suite runs with it", "tried": "it was tried once"}[pair.verified]
        yield note(
            f"MindSpore {around.version('mindspore')} with vLLM {around.row.vllm}: {how}, on a CPU with Python {pair.python} ({pair.shown}). "
            f"The whole test suite runs with MindSpore {', '.join(_fully_tested(around))}."
        )


def _pair_on_cpu(around: Surroundings) -> Pair | None:
    """The installed MindSpore with the row's vLLM, as the matrix knows them on a CPU, how it was verified best first."""
    installed = around.version("mindspore")
    pairs = (pair for pair in around.row.pairs if pair.device == "cpu" and installed in pair.mindspore)
    return min(pairs, key=lambda pair: VERIFIED.index(pair.verified), default=None)


def _fully_tested(around: Surroundings) -> list[str]:
    return [
        version
        for pair in around.row.pairs
        if pair.device == "cpu" and pair.verified == "cpu" and not pair.shown
        for version in pair.mindspore
    ]


def _conflicts(around: Surroundings) -> list[_Conflict]:
    """Those about packages of the row first, as they bring others with them."""
    by_name: dict[str, list[_Demand]] = {}
    for demand in _demands(around):
        by_name.setdefault(canonicalize_name(demand.name), []).append(demand)
    of_the_row = {"mindspore", "torch", *around.requirements}
    found = []
    for name, demands in sorted(
        by_name.items(), key=lambda item: (item[0] != "vllm", item[0] not in of_the_row, item[0])
    ):
        refused = [demand for demand in demands if not _is_met(around, demand)]
        if refused:
            needs = " and ".join(dict.fromkeys(f"{demand.by} needs {demand.specifier or 'it'}" for demand in refused))
            specifiers = dict.fromkeys(part for demand in demands for part in str(demand.specifier).split(",") if part)
            text = f"{name} {around.version(name) or 'is not installed'}, {needs}"
            found.append(_Conflict(name, text, name + ",".join(specifiers)))
    return found


def _demands(around: Surroundings) -> list[_Demand]:
    """Of the row and of the packages, but not of one that is itself in conflict: what comes in its place asks for something else."""
    demands = list(_of_the_row(around))
    for asking in _THAT_ASK:
        if all(_is_met(around, demand) for demand in demands if canonicalize_name(demand.name) == asking):
            demands += _of(around, asking)
    return demands


def _is_met(around: Surroundings, demand: _Demand) -> bool:
    installed = around.version(demand.name)
    return installed is not None and demand.specifier.contains(installed, prereleases=True)


def _of_the_row(around: Surroundings) -> Iterator[_Demand]:
    row = around.row
    needs = dict(around.requirements)
    if not around.vllm_is_of_the_row:
        needs["torch"] = row.torch  # else vLLM itself asks for it
        if not around.wanted.obstacle:
            yield _Demand("vllm", SpecifierSet(f"=={row.vllm}"), f"the row {row.extra}")
    for name, specifier in needs.items():
        if name == "mindspore" and _pair_on_cpu(around):
            continue  # the extra takes fewer than were tried
        yield _Demand(name, SpecifierSet(specifier), f"vLLM {row.vllm}")


def _of(around: Surroundings, asking: str) -> Iterator[_Demand]:
    """What a package itself asks for."""
    distribution = around.distribution(asking)
    if distribution is None or (asking == "vllm" and not around.vllm_is_of_the_row):
        return  # another row's vLLM asks for something else
    for text in distribution.requires or []:
        requirement = Requirement(text)
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            yield _Demand(requirement.name, requirement.specifier, f"{asking} {distribution.version}")
