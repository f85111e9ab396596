"""How much memory this machine, or the container we are in, has and has left; and what a step needs of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from vllm_mindspore.kernels.cpu import cgroup

if TYPE_CHECKING:
    from vllm_mindspore.models.config import ModelConfig

_MEMINFO = Path("/proc/meminfo")
_CGROUP_FILES = (
    ("memory.max", "memory.current", "inactive_file"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)
"""A group's limit, its use, and the line of memory.stat with what of that use are copies of files that may go; by cgroup v2, then v1."""


def _meminfo(key: str) -> int:
    try:
        return _lines(_MEMINFO)[key] * 1024
    except KeyError:
        raise RuntimeError(f"{_MEMINFO} has no line {key}") from None


def _lines(file: Path) -> dict[str, int]:
    """The number behind each name in a file that has a line for each; nothing, if it cannot be read."""
    lines = (line.split() for line in cgroup.read(file).splitlines())
    return {words[0].rstrip(":"): int(words[1]) for words in lines}


def _groups() -> Iterator[tuple[int, int]]:
    """The limit and the use in bytes of each control group around this process that has a limit.

    Copies of files that nobody has touched lately (above all the weights just read) are not counted as use, as Kubernetes does not: the
    system drops them before it refuses memory.
    """
    for folder in cgroup.folders("memory"):
        for limit, usage, files in _CGROUP_FILES:
            allowed, used = (cgroup.read(folder / name) for name in (limit, usage))
            if allowed.isdigit():  # not "max"
                yield int(allowed), max(0, int(used or 0) - _lines(folder / "memory.stat").get(files, 0))


def total_memory() -> int:
    """Bytes of RAM that this process may ever use: the machine's, or the lowest limit of its control groups if that is lower."""
    return min([_meminfo("MemTotal"), *(limit for limit, _ in _groups())])


def available_memory() -> int:
    """Bytes that can still be used without swapping, within the limits of the control groups."""
    return min([_meminfo("MemAvailable"), *(max(0, limit - used) for limit, used in _groups())])


def kv_cache_bytes_per_block(config: ModelConfig, block_size: int) -> int:
    """Bytes of both caches of all layers for one block of `block_size` tokens."""
    per_token = sum(heads * width for heads, width in config.cache_widths) * dtype_bytes(config.dtype)
    return config.num_layers * block_size * per_token


def activation_bytes(config: ModelConfig, num_tokens: int, num_logits: int) -> int:
    """Bytes of the float32 intermediates that live at once while a step of `num_tokens` runs (an upper estimate).

    Two residual streams, the normed input and an output of hidden size; query, key, value before and after rope with the
    attention's output; the MLP's middle, or a token's rows, middles and answers of all its experts with the shared one's; and one
    row of logits for each of `num_logits`.
    """
    if config.mla:
        mla, latents = config.mla, config.num_heads * config.mla.kv_lora_rank
        own = config.num_heads * (mla.qk_nope_head_dim + 2 * mla.qk_rope_head_dim + mla.v_head_dim)
        attention = (mla.q_lora_rank or 0) + 2 * config.head_dim + own + 2 * latents
    else:
        attention = (
            2 * (config.num_heads + 2 * config.num_kv_heads) * config.head_dim + config.num_heads * config.head_dim
        )
    middle = 2 * config.intermediate_size
    if config.moe:
        expert = 2 * config.hidden_size + config.moe.intermediate_size
        experts = config.moe.experts_per_token * expert + config.moe.shared_intermediate_size + 2 * config.hidden_size
        middle = max(middle, experts)
    per_token = 4 * config.hidden_size + attention + middle
    return 4 * (num_tokens * per_token + num_logits * config.vocab_size)


def dtype_bytes(dtype: str) -> int:
    """Bytes of one element of a model dtype by its torch name."""
    return {"bfloat16": 2, "float16": 2, "float32": 4}[dtype]
