"""How many bytes the KV cache gets on a device that shares its memory with everything else."""

from __future__ import annotations

from vllm_mindspore.errors import UserError

GIB = 1 << 30


def kv_cache_budget(
    *, requested: tuple[int, str] | None, utilization: float, total: int, available: int, weights: int, activations: int
) -> int:
    """Bytes for keys and values, counted once the weights are in memory.

    Args:
        requested: bytes asked for in so many words, which are granted exactly or refused, and the name of the option.
        utilization: otherwise, the fraction of `total` that weights, activations and KV cache may fill together.
        total: bytes of memory that this process may ever use.
        available: bytes of it that are free now.
        weights: bytes of the weights, which are no longer part of `available`.
        activations: bytes that a step needs beside the cache.

    Raises:
        UserError: the cache does not fit.
    """
    free = available - activations
    if requested is not None:
        wanted, option = requested
        if wanted > free:
            raise UserError(
                f"A KV cache of {wanted / GIB:.2f} GiB does not fit: {available / GIB:.2f} GiB of memory are free beside the weights "
                f"({weights / GIB:.2f} GiB) and a step needs {activations / GIB:.2f} GiB of it, so lower {option}."
            )
        return wanted
    allowed = int(utilization * total) - weights - activations
    if free <= 0:
        raise UserError(
            f"No memory is left for a KV cache: {available / GIB:.2f} GiB are free beside the weights ({weights / GIB:.2f} GiB) and a step "
            f"needs {activations / GIB:.2f} GiB, so lower --max-num-batched-tokens and --max-num-seqs or free some memory."
        )
    if allowed <= 0:
        raise UserError(
            f"--gpu-memory-utilization {utilization:g} of {total / GIB:.2f} GiB leaves nothing for a KV cache beside the weights "
            f"({weights / GIB:.2f} GiB) and a step's {activations / GIB:.2f} GiB, so raise it."
        )
    return min(allowed, free)
