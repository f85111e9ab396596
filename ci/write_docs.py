"""Write what the documents take from the code, between its markers: `make docs`. A test finds what is stale by `--check`.

<!-- matrix: releases -->   the tables of version_matrix.toml, in README.md and README.zh-CN.md
<!-- matrix: pairs -->
<!-- matrix: toolkits -->   which CANN toolkits each MindSpore takes
<!-- device: 910b -->       the Atlas products of a kind of processor
<!-- commands -->           the reference of the command line, in docs/cli.md
<!-- end -->                where each ends
"""

from __future__ import annotations

import argparse
import re
import sys
from dataclasses import replace
from pathlib import Path

from vllm_mindspore.cli import main as command_line
from vllm_mindspore.cli.matrix_table import Table, pairs, releases
from vllm_mindspore.matrix import devices, toolkits

ROOT = Path(__file__).resolve().parent.parent
CHINESE = {
    "engines": "引擎",
    "extra": "安装选项",
    "device": "设备",
    "verified": "验证方式",
    "shown": "说明",
}
CHINESE_PHRASES = {
    "generation on V1 and V0": "V1 和 V0 上的生成",
    "generation on V0": "V0 上的生成",
    "slower, as MindSpore's runtime launches the operators, and an engine that is gone keeps its memory": "较慢，因为算子由 MindSpore 的运行时下发；引擎结束后不释放内存",
    "kernels, networks, loader": "算子、网络、加载器",
    "no engine yet": "尚未运行引擎",
    "the forerunner ran it": "前身项目运行过",
    ", with MindSpore Transformers ": "，配 MindSpore Transformers ",
    "not on PyPI, and older than the extra takes": "PyPI 上没有，也早于安装选项接受的版本",
    "; ": "；",
}
"""What the matrix says of a pair is made of these."""


def translated(table: Table, document: Path) -> Table:
    if ".zh-CN." not in document.name:
        return table
    titles = tuple(CHINESE.get(title, title) for title in table.titles)
    return replace(table, titles=titles, lines=tuple(tuple(map(in_chinese, line)) for line in table.lines))


def in_chinese(cell: str) -> str:
    for english, chinese in CHINESE_PHRASES.items():
        cell = cell.replace(english, chinese)
    return cell


def content(marker: str, document: Path) -> str:
    kind, _, name = marker.partition(": ")
    if kind == "device":
        return ", ".join(devices()[name])
    if kind == "commands":
        return f"\n\n{commands()}\n\n"
    table = {"releases": releases, "pairs": pairs, "toolkits": accepted}[name]()
    return f"\n\n{translated(table, document).markdown()}\n\n"


def accepted() -> Table:
    return Table(("MindSpore", "toolkits"), tuple((name, ", ".join(taken)) for name, taken in toolkits().items()))


def commands() -> str:
    """A section for each command, from its argparse parser."""
    (subparsers,) = (
        action for action in command_line._parser()._actions if isinstance(action, argparse._SubParsersAction)
    )
    return "\n\n".join(section(name, parser) for name, parser in subparsers.choices.items())


def section(name: str, parser: argparse.ArgumentParser) -> str:
    lines = [f"## vllm-mindspore {name}", "", parser.description or "", ""]
    lines += ["| argument | meaning |", "| --- | --- |"]
    for action in parser._actions:
        meaning = (action.help or "").replace("|", "\\|") % {**vars(action), "prog": parser.prog}
        if action.choices:
            meaning += f" ({', '.join(map(str, action.choices))})"
        lines.append(f"| `{' '.join(filter(None, (', '.join(action.option_strings), operand(action))))}` | {meaning} |")
    lines += ["", "```sh", *(line.strip() for line in (parser.epilog or "").splitlines()[1:]), "```"]
    return "\n".join(lines)


def operand(action: argparse.Action) -> str:
    """What is written for an argument's value."""
    if action.option_strings and action.nargs == 0:
        return ""
    shown = action.metavar if isinstance(action.metavar, str) else action.dest.upper()
    if shown == "...":
        return shown
    return {"?": f"[{shown}]", "*": f"[{shown} ...]", "+": f"{shown} ..."}.get(str(action.nargs), shown)


def written(document: Path) -> str:
    """The document with everything between markers made anew."""
    return re.sub(
        r"(<!-- ((?:matrix|device): \w+|commands) -->).*?(<!-- end -->)",
        lambda found: f"{found[1]}{content(found[2], document)}{found[3]}",
        document.read_text(encoding="utf-8"),
        flags=re.DOTALL,
    )


def main() -> int:
    parser = argparse.ArgumentParser(description="Write what the documents take from the code.")
    parser.add_argument("--check", action="store_true", help="write nothing, name the documents that are stale")
    options = parser.parse_args()
    stale = 0
    for document in [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]:
        new = written(document)
        if new == document.read_text(encoding="utf-8"):
            continue
        if options.check:
            print(f"{document.relative_to(ROOT)} is not what the code says: run make docs", file=sys.stderr)
            stale = 1
        else:
            document.write_text(new, encoding="utf-8")
    return stale


if __name__ == "__main__":
    sys.exit(main())
