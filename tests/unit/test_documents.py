"""What the documents say of the code, and the commands in them, as far as they can be judged without running vLLM."""

from __future__ import annotations

import argparse
import ast
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.conftest import ROOT
from vllm_mindspore.cli import main
from vllm_mindspore.compat.common.configuration import BLOCK_SIZES
from vllm_mindspore.engine.memory import kv_cache_bytes_per_block
from vllm_mindspore.matrix import rows
from vllm_mindspore.models.config import ModelConfig

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

DOCUMENTS = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
BIN = Path(sys.executable).parent


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def test_what_is_taken_from_the_code_is_not_stale() -> None:
    command = [sys.executable, ROOT / "ci/write_docs.py", "--check"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_chinese_tables_say_nothing_in_english() -> None:
    table = read("README.zh-CN.md").partition("<!-- matrix: pairs -->")[2].partition("<!-- end -->")[0]
    for line in table.splitlines():
        for word in re.findall(r"[A-Za-z]{3,}", line.rpartition(" | ")[2] if line.count("|") > 7 else ""):
            assert word in ("MindSpore", "Transformers", "PyPI"), line


def test_the_picture_is_drawn_from_its_text(tmp_path: Path) -> None:
    drawn = tmp_path / "architecture.svg"
    command = [BIN / "d2", "--layout", "elk", "--pad", "20", ROOT / "docs/architecture.d2", drawn]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    assert drawn.read_bytes() == (ROOT / "docs/architecture.svg").read_bytes(), "run make docs"


def test_every_link_within_the_project_leads_somewhere() -> None:
    for document in DOCUMENTS:
        text = document.read_text(encoding="utf-8")
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            if "://" in target:
                continue
            path, _, anchor = target.partition("#")
            there = document.parent / path if path else document
            assert there.exists(), f"{document.name}: {target}"
            if anchor:
                titles = re.findall(r"^#+ (.*)$", there.read_text(encoding="utf-8"), re.MULTILINE)
                anchors = {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
                assert anchor in anchors, f"{document.name}: {target}"


def number(text: str) -> int:
    return int(text.replace(",", ""))


def test_the_tables_of_the_kv_cache_are_counted_right(demo_model: Path) -> None:
    text = read("docs/memory.md")
    rows_of_six = re.findall(r"^\| (\S+) \| (\d+) \| (\d+) \| (\d+) \| ([\d,]+) \| ([\d,]+) \|$", text, re.MULTILINE)
    assert len(rows_of_six) > 6
    for name, layers, second, third, bytes_, tokens in rows_of_six:
        numbers = int(second) + int(third) if name.startswith("DeepSeek") else 2 * int(second) * int(third)
        assert number(bytes_) == int(layers) * numbers * 2, name
        assert number(tokens) == (1 << 30) // (64 * number(bytes_)) * 64, name
    config = ModelConfig.from_hf(json.loads((demo_model / "config.json").read_text()), "bfloat16", demo_model)
    (smollm2,) = (number(bytes_) for name, *_, bytes_, _ in rows_of_six if name == "SmolLM2-135M")
    assert kv_cache_bytes_per_block(config, 64) == 64 * smollm2
    assert {engine: int(n) for n, engine in re.findall(r"of (\d+)(?: tokens)? on (V\d)", text)} == BLOCK_SIZES


# Environment variables


def variables_in_python(file: Path, constants: dict[str, str]) -> Iterator[str]:
    """Names that are looked up in or written to `os.environ`."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Subscript) and ast.unparse(node.value) == "os.environ":
            name = node.slice
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("os.environ.get", "os.environ.pop", "os.getenv"):
            name = node.args[0]
        else:
            continue
        yield name.value if isinstance(name, ast.Constant) else constants[f"{file}:{ast.unparse(name)}"]


def constants_of(file: Path) -> dict[str, str]:
    found = re.findall(r'^(\w+) = "([A-Z][A-Z0-9_]+)"$', file.read_text(encoding="utf-8"), re.MULTILINE)
    return {f"{file}:{name}": value for name, value in found}


def test_the_table_of_environment_variables_is_that_of_the_code() -> None:
    looking = ROOT / "vllm_mindspore/cli/checks", ROOT / "vllm_mindspore/cli/doctor"  # at what others do with them
    python = [
        file
        for folder in ("vllm_mindspore", "compat", "kernels")
        for file in (ROOT / folder).rglob("*.py")
        if not any(place in file.parents for place in looking)
    ]
    constants = {name: value for file in python for name, value in constants_of(file).items()}
    used = {name for file in python for name in variables_in_python(file, constants)}
    for file in (ROOT / "kernels").rglob("*.cc"):
        used |= set(re.findall(r'getenv\("(\w+)"\)', file.read_text(encoding="utf-8")))
    assert used == set(re.findall(r"^\| `(\w+)` \|", read("docs/environment.md"), re.MULTILINE))


# Commands in shell blocks


def commands() -> list[tuple[str, str]]:
    """Each line of each block: where it stands, and the line without comment and continuation."""
    found = []
    for document in DOCUMENTS:
        for block in re.findall(r"^```sh\n(.*?)^```", document.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
            for line in re.sub(r"-d '\{.*?\}'", "-d '{}'", block.replace("\\\n", ""), flags=re.DOTALL).splitlines():
                for part in re.split(r" && ", line):
                    if words(part):
                        found.append((document.name, part))
    return found


def words(line: str) -> list[str]:
    return shlex.split(line, comments=True)


def options_of(name: str) -> set[str]:
    (subparsers,) = (a for a in main._parser()._actions if isinstance(a, argparse._SubParsersAction))
    return {option for action in subparsers.choices[name]._actions for option in action.option_strings}


def is_right(line: str) -> bool:
    """Whether a program of that name takes what it is given, for all programs that documents may name."""
    given = [word for word in words(line) if not re.fullmatch(r"[A-Z_0-9]+=.*", word)]
    flags = {word.partition("=")[0] for word in given[1:] if word.startswith("--")}
    program = Path(given[0]).name
    if program == "vllm-mindspore":
        if given[1].startswith("-"):
            return flags <= {"--version", "--print-completion", "--help"}
        if given[1] == "serve":
            return flags <= vllms_flags()
        return flags <= options_of(given[1])
    if program == "vllm":
        return given[1] in ("serve", "bench") and flags <= vllms_flags()
    if program == "make":
        return all(re.search(rf"^{word}:", read("Makefile"), re.MULTILINE) for word in given[1:] if "=" not in word)
    if program == "docker":  # what follows our image's name is vllm-mindspore's
        (image,) = (at for at, word in enumerate(given) if re.match("vllm-mindspore:", word))
        return given[1] == "run" and (
            not given[image + 1 :] or is_right(shlex.join(["vllm-mindspore", *given[image + 1 :]]))
        )
    if program in ("pip", "uv"):
        extras = {extra for word in given for extra in re.findall(r"^\.\[(.*)\]$", word)}
        known = tomllib.loads(read("pyproject.toml"))["project"]["optional-dependencies"]
        files = [given[at + 1] for at, word in enumerate(given) if word == "-r"]
        return {e for some in extras for e in some.split(",")} <= set(known) and all(
            (ROOT / f).is_file() for f in files
        )
    if program == "pytest":
        return all((ROOT / word).exists() for word in given[1:] if word.startswith("tests/"))
    if program.endswith((".sh", ".py")) or program.startswith("python"):
        scripts = [word for word in given if word.endswith((".sh", ".py"))]
        return all((ROOT / script).is_file() for script in scripts)
    return program in ("sudo", "curl", "echo", "export", "cmake", "install", "mkdir")


def vllms_flags() -> set[str]:
    vllm = Path(find_spec("vllm").submodule_search_locations[0])
    sources = [vllm / "engine/arg_utils.py", vllm / "entrypoints/openai/cli_args.py"]
    return {flag for file in sources for flag in re.findall(r"['\"](--[a-z-]+)['\"]", file.read_text(encoding="utf-8"))}


@pytest.mark.parametrize(("document", "line"), commands())
def test_a_command_in_a_document_exists_with_its_flags(document: str, line: str) -> None:
    assert is_right(line), f"{document}: {line}"


HARMLESS = re.compile(r"vllm-mindspore (--version|--print-completion)|ci/build_image\.sh .*--dry-run")


@pytest.mark.parametrize("line", sorted({line.partition(" #")[0] for _, line in commands() if HARMLESS.search(line)}))
def test_a_harmless_command_in_a_document_runs(line: str, tmp_path: Path) -> None:
    environment = {"PATH": f"{BIN}:/usr/bin:/bin", "HOME": str(tmp_path)}
    (tmp_path / ".local/share/bash-completion/completions").mkdir(parents=True)  # as the line before it does
    done = subprocess.run(["bash", "-c", line], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


# What goes wrong, by symptom

OTHERS = {
    "Failed to infer device type": "vllm/config.py",
    "is already used by a Transformers config": "transformers/models/auto/configuration_auto.py",
    "quantization is not fully": "vllm/config.py",
    "is experimental on VLLM_USE_V1=1.": "vllm/engine/arg_utils.py",
    "Falling back to V0 Engine.": "vllm/engine/arg_utils.py",
    "Initializing a V1 LLM engine": "vllm/v1/engine/core.py",
    "Platform plugin": "vllm/platforms/__init__.py",
}
"""Messages of others that the README and the documents quote, and where they come from."""


@pytest.mark.parametrize(("said", "where"), OTHERS.items())
def test_a_message_of_others_is_quoted_as_they_say_it(said: str, where: str) -> None:
    package, _, file = where.partition("/")
    source = (Path(find_spec(package).submodule_search_locations[0]) / file).read_text(encoding="utf-8")
    assert said in source
    assert said in read("README.md") + read("docs/quickstart.md")


def test_our_messages_are_quoted_as_the_program_says_them() -> None:
    table = read("README.md").partition("| what is said, and where |")[2].partition("\n\n")[0]
    quoted = [
        text for cell in re.findall(r"^\| (.*?) \|", table, re.MULTILINE) for text in re.findall(r"`([^`]+)`", cell)
    ]
    sources = "".join(
        file.read_text(encoding="utf-8")
        for folder in ("vllm_mindspore", "compat", "kernels")
        for file in (ROOT / folder).rglob("*.py")
    )
    ours = [text for text in quoted if "..." in text and not any(said in text for said in OTHERS)]
    assert len(ours) > 6
    for text in ours:
        for fragment in text.split("..."):
            assert fragment.strip("' ") in sources, text


def test_the_readmes_tell_of_the_same_things() -> None:
    english, chinese = read("README.md"), read("README.zh-CN.md")
    for row in rows():
        assert f"| {row.vllm} | {row.engine} |" in english
        assert f"| {row.vllm} | {row.engine} |" in chinese
    blocks = [re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL) for text in (english, chinese)]
    assert [words(block) for block in blocks[0]] == [words(block) for block in blocks[1]]
    said = [
        sorted(re.findall(r"`[^`]+`", text[text.index(begin) : text.index(end)]))
        for text, begin, end in (
            (english, "## What there is", "## vLLM's attributes"),
            (chinese, "## 支持的内容", "## 被修补的 vLLM 属性"),
        )
    ]
    assert said[0] == said[1]
