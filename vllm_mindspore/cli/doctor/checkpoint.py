"""What can be known of a checkpoint from the names, sizes and settings of its files, in a folder or on the hub."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from vllm_mindspore.weight_files import FORMS, index_of, without_index

_POINTER = b"version https://git-lfs"
_LONGEST_HEADER = 100 << 20
"""That the library of the format reads."""


@dataclass(frozen=True)
class Checkpoint:
    """A model's files."""

    name: str
    """As the user named it."""
    files: Mapping[str, int]
    """Name -> bytes."""
    config: Mapping[str, Any] | None
    """`config.json`."""
    tokenizer: Mapping[str, Any]
    """`tokenizer_config.json`."""
    folder: Path | None = None

    @classmethod
    def in_folder(cls, name: str, folder: Path) -> Checkpoint:
        """Look into a folder.

        Raises:
            ValueError: a file is not JSON.
        """
        files = {file.name: file.stat().st_size for file in folder.iterdir() if file.is_file()}
        config = _read(folder / "config.json") if "config.json" in files else None
        tokenizer = _read(folder / "tokenizer_config.json") if "tokenizer_config.json" in files else {}
        return cls(name, files, config, tokenizer, folder)

    @classmethod
    def on_hub(cls, name: str, files: Mapping[str, int], read: Mapping[str, Any]) -> Checkpoint:
        """From what the probe `model` told."""
        return cls(name, files, read.get("config.json"), read.get("tokenizer_config.json", {}))

    @cached_property
    def weights(self) -> Mapping[str, int]:
        """The files that hold the weights, as the loader chooses them."""
        for form in FORMS:
            index = index_of(form)
            named = _shards(self.folder / index) if self.folder and index in self.files else None
            found = [name for name in named if name in self.files] if named else without_index(form, self.files)
            if found:
                return {name: self.files[name] for name in found}
        return {}

    @property
    def missing_weights(self) -> list[str]:
        """Files that an index names and that are not there; and all, if there is no index and no weight."""
        index = next((index for index in map(index_of, FORMS) if index in self.files), None)
        if self.folder is None or index is None:
            return [] if self.weights else ["model.safetensors"]
        return [name for name in _shards(self.folder / index) if name not in self.files]

    @cached_property
    def pointers(self) -> list[str]:
        """Weights that Git LFS was to fetch and did not."""
        if self.folder is None:
            return []
        small = [name for name, size in self.weights.items() if size < 1024]
        return [name for name in small if (self.folder / name).read_bytes().startswith(_POINTER)]

    @property
    def damaged(self) -> list[str]:
        """Weights that end too early or begin with no header, and a tokenizer that is not JSON."""
        if self.folder is None:
            return []
        weights = [name for name in self.weights if name.endswith(".safetensors") and name not in self.pointers]
        found = [name for name in weights if not _is_complete(self.folder / name)]
        if "tokenizer.json" in self.files:
            try:
                _read(self.folder / "tokenizer.json")
            except ValueError:
                found.append("tokenizer.json")
        return found

    @property
    def dtype(self) -> str:
        """Of the weights, as `config.json` says."""
        told = str((self.config or {}).get("torch_dtype") or (self.config or {}).get("dtype") or "float32")
        return told.rpartition(".")[2]

    @property
    def has_tokenizer(self) -> bool:
        return bool(self.files.keys() & {"tokenizer.json", "tokenizer.model", "vocab.json"})

    @property
    def has_chat_template(self) -> bool:
        return bool(self.tokenizer.get("chat_template")) or bool(
            self.files.keys() & {"chat_template.jinja", "chat_template.json"}
        )


def _is_complete(safetensors: Path) -> bool:
    """Whether the file is as long as its header says: eight bytes of the header's length, the header, and what it describes."""
    with safetensors.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        try:
            tensors = json.loads(file.read(min(length, _LONGEST_HEADER)))
            ends = [tensor["data_offsets"][1] for name, tensor in tensors.items() if name != "__metadata__"]
            return bool(safetensors.stat().st_size == 8 + length + max(ends, default=0))
        except (ValueError, AttributeError, KeyError, TypeError, IndexError):
            return False


def _shards(index: Path) -> list[str]:
    return sorted(set(_read(index).get("weight_map", {}).values()))


def _read(file: Path) -> dict[str, Any]:
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise ValueError(f"{file} holds no JSON object")
    return value
