"""Whether a model can be served here: its architecture, dtype, memory and chat template."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from pathlib import Path

from vllm_mindspore.cli.checks.hub import offline_by
from vllm_mindspore.cli.checks.imports import longer
from vllm_mindspore.cli.doctor.checkpoint import Checkpoint
from vllm_mindspore.cli.doctor.finding import Finding, Remedy, note, ok, problem
from vllm_mindspore.cli.doctor.surroundings import Surroundings
from vllm_mindspore.compat.common.configuration import BLOCK_SIZES
from vllm_mindspore.engine.memory import (
    activation_bytes,
    available_memory,
    dtype_bytes,
    kv_cache_bytes_per_block,
    total_memory,
)
from vllm_mindspore.errors import UserError
from vllm_mindspore.models.config import ModelConfig

NAME = "model"
LOOKS_AT = "the model of --model: architecture, dtype, memory, chat template"
FOLLOWS = ()

GIB = 1 << 30
_STEP_TOKENS = 2048
"""What vLLM's server runs in one step by default."""
_UTILIZATION = 0.9
"""vLLM's default of --gpu-memory-utilization, of all memory here."""
_READ = ("float32", "float16", "bfloat16")
_NAMES = {"half": "float16", "float": "float32"}
_YARN = ("factor", "original_max_position_embeddings")
"""What transformers and vLLM read of yarn's settings without asking whether it is there."""
_KIND = ("architectures", "quantization_config")
"""Keys of config.json that say what a checkpoint is."""
_INSTEAD = "in place of the command that you meant to run"


def run(around: Surroundings) -> Iterator[Finding]:
    name = around.wanted.model
    if name is None:
        return
    name = os.path.expanduser(name)
    try:
        yield from _look(around, name)
    except (OSError, ValueError) as error:  # files that cannot be read, or hold something else than JSON
        yield problem(str(error), _edit(Path(name), str(error)) if Path(name).is_dir() else _fetch(name), {"model"})


def _look(around: Surroundings, name: str) -> Iterator[Finding]:
    checkpoint = _checkpoint(around, name)
    if isinstance(checkpoint, Finding):
        yield checkpoint
        return
    yield from _complete(checkpoint)
    if checkpoint.config is not None:
        yield from _network(around, checkpoint)


def _edit(folder: Path, error: str) -> Remedy:
    """Of the file that an error names, config.json in most."""
    file = next((file for file in folder.glob("*.json") if str(file) in error), folder / "config.json")
    return Remedy(f"vi {shlex.quote(str(file))}", "and mend what the sentence names")


def _checkpoint(around: Surroundings, name: str) -> Checkpoint | Finding:
    if Path(name).is_dir():
        return Checkpoint.in_folder(name, Path(name))
    if name.startswith((".", "/", "~")) or name.count("/") != 1:
        return problem(
            f"{name} is no folder, and no id of a model on the hub, which is owner/name",
            Remedy(f"ls {shlex.quote(str(Path(name).parent))}", "and name the folder that holds config.json"),
            {"model"},
        )
    offline = offline_by(around)
    answers = around.probes.ask("model", model=name, online=offline is None)
    found = answers.parts.get("model")
    if found is None:
        return problem(f"The hub's client: {answers.error}", longer(around), {"model", "huggingface-hub"})
    if "error" in found:
        return problem(
            f"{name} is not in the cache, and the hub does not give it: {found['error']}", _fetch(name), {"model"}
        )
    if found.get("folder"):
        return Checkpoint.in_folder(name, Path(found["folder"]))
    if offline:
        return problem(
            f"{name} is not in the cache, and {offline} keeps from fetching it",
            Remedy(f"{offline}=0 {_fetch(name).command}", "where there is a network"),
            {"model"},
        )
    return Checkpoint.on_hub(name, found["files"], found["read"])


def _fetch(name: str) -> Remedy:
    return Remedy(
        f"huggingface-cli download {shlex.quote(name)}",
        "where there is a network; then name the folder, or copy the cache here",
    )


def _is_local(checkpoint: Checkpoint) -> bool:
    """Whether the user named a folder, and not a model that the cache has."""
    return checkpoint.folder == Path(checkpoint.name)


def _bring(checkpoint: Checkpoint) -> Remedy:
    """What is missing or damaged."""
    if _is_local(checkpoint):
        return Remedy(f"ls -l {shlex.quote(checkpoint.name)}", "and copy it anew from where the checkpoint came from")
    return _fetch(checkpoint.name)


def _complete(checkpoint: Checkpoint) -> Iterator[Finding]:
    where = checkpoint.folder or checkpoint.name
    if checkpoint.config is None:
        yield problem(f"{where} has no config.json", _bring(checkpoint), {"model"})
    if checkpoint.missing_weights:
        missing = checkpoint.missing_weights
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        yield problem(f"{where} lacks weights: {missing[0]}{more}", _bring(checkpoint), {"model"})
    if checkpoint.pointers:
        pull = Remedy(f"git -C {shlex.quote(str(where))} lfs pull", "where there is a network")
        yield problem(f"{where} holds a Git LFS pointer in place of {', '.join(checkpoint.pointers)}", pull, {"model"})
    for name in checkpoint.damaged:
        yield problem(f"{name} in {where} is damaged or not complete", _bring(checkpoint), {"model"})
    if not checkpoint.has_tokenizer:
        yield problem(
            f"{where} has no tokenizer: neither tokenizer.json nor tokenizer.model nor vocab.json",
            _bring(checkpoint),
            {"model"},
        )
    if checkpoint.has_chat_template:
        yield ok(f"{checkpoint.name} has a chat template")
    else:
        remedy = Remedy(f"vllm-mindspore serve {shlex.quote(checkpoint.name)} --chat-template FILE", _INSTEAD)
        yield note(
            f"{checkpoint.name} has no chat template: /v1/chat/completions will refuse, /v1/completions works", remedy
        )


def _network(around: Surroundings, checkpoint: Checkpoint) -> Iterator[Finding]:
    config = checkpoint.config or {}
    dtype = _dtype(around.wanted.dtype, checkpoint)
    try:
        network = ModelConfig.from_hf(config, dtype, checkpoint.folder or checkpoint.name)
    except UserError as error:
        yield problem(str(error), _other_value(checkpoint, str(error)), {"model"})
        return
    is_yarn = network.rope.kind == "yarn" and _scales_for_vllm(checkpoint)
    lacks = [key for key in _YARN if is_yarn and key not in network.rope.parameters]
    if lacks:
        where = checkpoint.folder or checkpoint.name
        yield problem(
            f"rope_scaling in config.json of {where} is of the type yarn and lacks {lacks[0]}, without which vLLM cannot read it",
            _complete_rope(checkpoint, lacks[0]),
            {"model"},
        )
        return
    kind = "16 bits, as vLLM chooses" if _is_left_to_vllm(around.wanted.dtype, checkpoint) else dtype
    yield ok(f"{network.architecture} is known, and runs in {kind}")
    if checkpoint.weights:
        yield _fits(around, checkpoint, network)


def _complete_rope(checkpoint: Checkpoint, key: str) -> Remedy:
    edit = (
        f"vi {shlex.quote(str(checkpoint.folder / 'config.json'))}"
        if checkpoint.folder
        else _fetch(checkpoint.name).command
    )
    return Remedy(edit, f"and add {key} to rope_scaling in config.json")


def _other_value(checkpoint: Checkpoint, error: str) -> Remedy:
    """Of the key that a network refuses; a checkpoint of another kind, if no value of it would make this one run."""
    if _is_local(checkpoint) and "config.json has " in error and not any(f" has {key}" in error for key in _KIND):
        return _edit(Path(checkpoint.name), error)
    return Remedy(
        "vllm-mindspore matrix --json",
        "lists the architectures under models: choose a checkpoint of one, in floats or in int8 by compressed-tensors",
    )


def _is_left_to_vllm(asked: str, checkpoint: Checkpoint) -> bool:
    """Whether vLLM makes 16 bits of 32: float16 or, from 0.9 on, bfloat16. `dtype`, which transformers 5 writes, it does not read."""
    return asked == "auto" and (checkpoint.config or {}).get("torch_dtype") in (None, "float32")


def _dtype(asked: str, checkpoint: Checkpoint) -> str:
    if asked == "auto":
        return "float16" if _is_left_to_vllm(asked, checkpoint) else checkpoint.dtype
    return _NAMES.get(asked, asked)


def _fits(around: Surroundings, checkpoint: Checkpoint, network: ModelConfig) -> Finding:
    most = positions(network) if _scales_for_vllm(checkpoint) else network.max_position_embeddings
    longest = around.wanted.max_model_len or most
    serve = f"vllm-mindspore serve {shlex.quote(checkpoint.name)} --dtype {network.dtype} --max-model-len"
    if longest > most and around.environ.get("VLLM_ALLOW_LONG_MAX_MODEL_LEN") != "1":
        return problem(
            f"--max-model-len {longest} is more than the {most} positions of {checkpoint.name}",
            Remedy(f"{serve} {most}", _INSTEAD),
            {"model"},
        )
    stored = sum(checkpoint.weights.values())
    written = dtype_bytes(checkpoint.dtype) if checkpoint.dtype in _READ else 2
    weights = stored * dtype_bytes(network.dtype) // written
    step = _STEP_TOKENS if around.row.engine == "V1" else max(_STEP_TOKENS, longest)
    activations = activation_bytes(network, step, around.row.max_num_seqs)
    available = available_memory()
    for_cache = _cache(around, available, weights + activations)
    block_size = BLOCK_SIZES[around.row.engine]
    block = kv_cache_bytes_per_block(network, block_size)
    fitting = max(0, for_cache) // block * block_size
    cache = -(-longest // block_size) * block
    needs = f"weights {weights / GIB:.2f} GiB, a step {activations / GIB:.2f} GiB, {longest} tokens of KV cache {cache / GIB:.2f} GiB"
    text = f"{needs}; {available / GIB:.2f} GiB of memory are free"
    if not fitting:
        return problem(
            f"{checkpoint.name} does not fit: {text}",
            Remedy("free -g", "and free memory, or take a smaller model"),
            {"model"},
        )
    if fitting < longest:
        return problem(
            f"{checkpoint.name} does not fit with this context: {text}",
            Remedy(f"{serve} {fitting}", _INSTEAD),
            {"model"},
        )
    return ok(f"It fits: {text}, so {fitting // longest} such sequences run at once")


def _scales_for_vllm(checkpoint: Checkpoint) -> bool:
    """Whether vLLM knows that the rotary embedding is scaled: it reads no `rope_parameters`, which transformers 5 writes."""
    return (checkpoint.config or {}).get("rope_scaling") is not None


def positions(network: ModelConfig) -> int:
    """The longest context that vLLM gives the model without being told."""
    rope = network.rope
    if rope.kind == "llama3":  # whose maximum is already the scaled one
        return network.max_position_embeddings
    before: float = network.max_position_embeddings
    if rope.kind == "yarn":
        before = rope.parameters["original_max_position_embeddings"]
    return int(before * rope.parameters.get("factor", 1))


def _cache(around: Surroundings, available: int, beside: int) -> int:
    """Bytes that the KV cache may have, as the worker will count them."""
    asked = around.environ.get("VLLM_CPU_KVCACHE_SPACE", "")
    if asked.isdecimal() and int(asked):
        return min(int(asked) * GIB, available - beside)
    return min(int(_UTILIZATION * total_memory()), available) - beside
