"""CANN's version, and whether the installed MindSpore accepts it by its own list. Nobody ran this on an NPU."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from vllm_mindspore.cli.doctor import ascend
from vllm_mindspore.cli.doctor.finding import Finding, Remedy, note, ok, problem
from vllm_mindspore.cli.doctor.surroundings import Surroundings

NAME = "ascend-cann"
LOOKS_AT = "CANN's version, against the versions that this MindSpore accepts"
FOLLOWS = ()

_CHECKER = "run_check/_check_version.py"
_WHERE = "with the packages toolkit and kernels (ops) from hiascend.com"


def run(around: Surroundings) -> Iterator[Finding]:
    if not ascend.is_there(around):
        return
    mindspore = f"MindSpore {around.version('mindspore')}"
    wanted = accepted(around)
    accepts = (
        f"{mindspore} accepts {', '.join(wanted)}" if wanted else f"which versions {mindspore} accepts is not known"
    )
    installer = Remedy("./Ascend-cann-toolkit_<version>_linux-$(uname -m).run --install", _WHERE)
    folder = ascend.toolkit(around)
    if folder is None or not folder.is_dir():
        yield problem(f"CANN is not installed{f' in {folder}' if folder else ''}; {accepts}", installer, {"cann"})
        return
    version, release = _compiler(around, folder), _release(folder)
    told = f"CANN {release or '(release not told)'} in {folder}, its compiler {version or 'not told'}"
    if version is None:
        yield problem(
            f"{told}: {folder / 'compiler' / 'version.info'} is missing, so MindSpore cannot tell what it runs on",
            installer,
            {"cann"},
        )
    elif not wanted:
        yield note(f"{told}; {accepts}")
    elif ".".join(version.split(".")[:2]) not in wanted:
        yield problem(f"{told}; {accepts}", installer, {"cann", "mindspore"})
    else:
        yield ok(f"{told}; {accepts}")
    if not (folder / "opp" / "built-in" / "op_impl").is_dir():
        yield problem(f"{folder / 'opp'} holds no operators: the kernels package is not installed", installer, {"cann"})


def accepted(around: Surroundings) -> list[str]:
    """Versions in the wheel's own list, read without importing MindSpore, which would ask for CANN."""
    package = around.module_folder("mindspore")
    if package is None or not (package / _CHECKER).is_file():
        return []
    for node in ast.walk(ast.parse((package / _CHECKER).read_text(encoding="utf-8"))):
        if isinstance(node, ast.ClassDef) and node.name == "AscendEnvChecker":
            for line in ast.walk(node):
                if isinstance(line, ast.Assign) and ast.unparse(line.targets[0]) == "self.version":
                    return [str(version) for version in ast.literal_eval(line.value)]
    return []


def _compiler(around: Surroundings, folder: Path) -> str | None:
    """The version that MindSpore itself would read."""
    operators = around.environ.get("ASCEND_OPP_PATH")
    beside = Path(operators.split("opp")[0]) if operators else folder
    return ascend.read_info(beside / "compiler" / "version.info").get("Version")


def _release(folder: Path) -> str | None:
    for file in sorted(folder.glob("*-linux/ascend_*_install.info")):
        version = ascend.read_info(file).get("version")
        if version:
            return version
    return None
