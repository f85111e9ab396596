"""How much memory this machine, or the container we are in, has and has left; and what a step needs of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vllm_mindspore.models.config import ModelConfig

_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")


def _meminfo(key: str) -> int:
    for line in _MEMINFO.read_text().splitlines():
        name, _, value = line.partition(":")
        if name == key:
            return int(value.split()[0]) * 1024
    raise RuntimeError(f"{_MEMINFO} has no line {key}")


def _cgroup_bytes(*candidates: str) -> int | None:
    """The first of the cgroup files (v2, then v1) that holds a number; "max" and absence mean no limit."""
    for candidate in candidates:
        try:
            text = (_CGROUP / candidate).read_text().strip()
        except OSError:
            continue
        if text.isdigit():
            return int(text)
    return None


def total_memory() -> int:
    """Bytes of RAM that this process may ever use: the machine's, or its cgroup's limit if that is lower."""
    limit = _cgroup_bytes("memory.max", "memory/memory.limit_in_bytes")
    total = _meminfo("MemTotal")
    return total if limit is None else min(total, limit)


def available_memory() -> int:
    """Bytes that can still be used without swapping, within the cgroup's limit."""
    available = _meminfo("MemAvailable")
    limit = _cgroup_bytes("memory.max", "memory/memory.limit_in_bytes")
    used = _cgroup_bytes("memory.current", "memory/memory.usage_in_bytes")
    if limit is not None and used is not None:
        available = min(available, max(0, limit - used))
    return available


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
