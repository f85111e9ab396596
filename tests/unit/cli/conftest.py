"""A machine to hand to a check: its file system, environment variables, installed packages, and what the probes answer."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.check_env import SMALL_LLAMA
from vllm_mindspore.cli.doctor.finding import Check, Finding
from vllm_mindspore.cli.doctor.probing import Answers
from vllm_mindspore.cli.doctor.surroundings import Surroundings, Wanted
from vllm_mindspore.matrix import Row, rows


def row(extra: str) -> Row:
    return next(row for row in rows() if row.extra == extra)


@dataclass
class ToldProbes:
    """In the place of `Probes`: answers that a test has written."""

    answers: dict[str, Answers] = field(default_factory=dict)
    seconds: float = 18

    def ask(self, name: str, **_: Any) -> Answers:
        return self.answers[name]


@dataclass
class Machine:
    root: Path
    environ: dict[str, str] = field(default_factory=dict)
    machine: str = "x86_64"
    probes: ToldProbes = field(default_factory=ToldProbes)

    @property
    def site(self) -> Path:
        return self.root / "site"

    def write(self, path: str, text: str = "") -> Path:
        """Write a file below the root."""
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return file

    def install(
        self,
        name: str,
        version: str,
        requires: Iterable[str] = (),
        plugins: Mapping[str, str] | None = None,
        files: Mapping[str, str] | None = None,
    ) -> None:
        """Make a distribution, with platform plugins of vLLM and files if need be."""
        info = f"site/{name.replace('-', '_')}-{version}.dist-info"
        self.write(
            f"{info}/METADATA",
            f"Name: {name}\nVersion: {version}\n" + "".join(f"Requires-Dist: {r}\n" for r in requires),
        )
        if plugins:
            lines = "".join(f"{key} = {value}\n" for key, value in plugins.items())
            self.write(f"{info}/entry_points.txt", f"[vllm.platform_plugins]\n{lines}")
        for path, text in (files or {}).items():
            self.write(f"site/{path}", text)
        if files:
            self.write(f"{info}/RECORD", "".join(f"{path},,{len(text)}\n" for path, text in files.items()))

    def install_row(self, extra: str = "vllm091", **other: str) -> None:
        """What goes with a row, as far as its own table says; some of it in other versions."""
        versions = {
            "vllm": row(extra).vllm,
            "mindspore": "2.7.1",
            "torch": "2.7.0",
            "transformers": "4.51.3",
            "numpy": "1.26.4",
        }
        for name, version in {
            **versions,
            "pip": "25.0",
            "setuptools": "80.9.0",
            "tokenizers": "0.21.1",
            "protobuf": "5.29.3",
            **other,
        }.items():
            self.install(name, version)

    def answer(
        self, probe: str, parts: Mapping[str, Any] | None = None, error: str = "", timed_out: bool = False
    ) -> None:
        self.probes.answers[probe] = Answers(parts or {}, error, timed_out)

    def around(self, extra: str = "vllm091", **wanted: Any) -> Surroundings:
        probes: Any = self.probes
        return Surroundings(
            Wanted(row(extra), asked=True, **wanted),
            probes,
            environ=self.environ,
            path=(str(self.site),),
            root=self.root,
            here=self.root,
            python="/env/bin/python",
            machine=self.machine,
        )

    def look(self, check: Check, extra: str = "vllm091", **wanted: Any) -> list[Finding]:
        return list(check.run(self.around(extra, **wanted)))

    def problems(self, check: Check, extra: str = "vllm091", **wanted: Any) -> list[Finding]:
        return [found for found in self.look(check, extra, **wanted) if found.status == "problem"]

    def is_fine(self, check: Check, extra: str = "vllm091", **wanted: Any) -> str:
        """Hold that there is something good to say and nothing else; give it."""
        found = self.look(check, extra, **wanted)
        assert found
        assert {one.status for one in found} == {"ok"}, found
        return "\n".join(one.text for one in found)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    (tmp_path / "site").mkdir()
    return Machine(tmp_path)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A folder that looks like a small Llama in bfloat16, 1 MiB of weights."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(SMALL_LLAMA))
    (folder / "tokenizer.json").write_text("{}")
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": "{{ messages }}"}))
    header = b'{"weight": {"dtype": "U8", "shape": [65536], "data_offsets": [0, 65536]}}'
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(65536))
    return folder
