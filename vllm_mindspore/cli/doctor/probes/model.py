"""What the hub, or the cache of it on disk, knows of a model. Nothing is left in the cache."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from vllm_mindspore.cli.doctor.probes import Tell, failure

_READ = ("config.json", "tokenizer_config.json")
_WEIGHTS = ("*.safetensors", "*.bin")


def look(tell: Tell, model: str, online: bool) -> None:
    """Tell of the `model`: its `folder` if it is in the cache, else its `files` with their sizes and what those of `_READ` hold."""
    try:
        folder = _cached(model)
        if folder or not online:
            tell("model", {"folder": folder})
        else:
            tell("model", _fetched(model))
    except Exception as error:
        tell("model", failure(error))


def _cached(model: str) -> str | None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(model, local_files_only=True))
    except LocalEntryNotFoundError:
        return None
    return str(folder) if any(file for pattern in _WEIGHTS for file in folder.glob(pattern)) else None


def _fetched(model: str) -> dict[str, Any]:
    from huggingface_hub import HfApi, hf_hub_download

    files = {file.rfilename: file.size or 0 for file in HfApi().model_info(model, files_metadata=True).siblings or []}
    with tempfile.TemporaryDirectory() as folder:
        read = {
            name: json.loads(Path(hf_hub_download(model, name, local_dir=folder)).read_text(encoding="utf-8"))
            for name in _READ
            if name in files
        }
    return {"files": files, "read": read}
