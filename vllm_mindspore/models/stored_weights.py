"""What `quantization_config` says of a checkpoint's weights: which of it the loader can read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vllm_mindspore.models.config_reader import ConfigReader

METHOD = "compressed-tensors"
_FORMATS = ("int-quantized", "pack-quantized")
_WEIGHTS = {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "channel"}
_ACTIVATIONS = {"num_bits": 8, "type": "int"}


def check_stored_weights(reader: ConfigReader) -> None:
    """Refuse quantised weights other than those of compressed-tensors in int8, symmetric, with a scale for each output feature.

    Activations that were to be rounded to int8 as well may be: the kernels round them to int16 instead.

    Raises:
        UserError: the key, its value, and what it must be.
    """
    stored = reader.get("quantization_config")
    if stored is None:
        return
    if not isinstance(stored, Mapping):
        raise reader.illegal("quantization_config", "an object")
    where = "quantization_config."
    if stored.get("quant_method") != METHOD:
        raise reader.refused(f"{where}quant_method", stored.get("quant_method"), f"{METHOD}, or there must be none")
    sparsity = stored.get("sparsity_config") or {}
    if not isinstance(sparsity, Mapping) or sparsity.get("format", "dense") != "dense":
        raise reader.refused(f"{where}sparsity_config", sparsity, "of the format dense")
    if stored.get("kv_cache_scheme") is not None:
        raise reader.refused(f"{where}kv_cache_scheme", stored["kv_cache_scheme"], "null")
    groups = stored.get("config_groups")
    if not isinstance(groups, Mapping) or not all(isinstance(group, Mapping) for group in groups.values()):
        raise reader.refused(f"{where}config_groups", groups, "an object of objects")
    for name, group in groups.items():
        here = f"{where}config_groups.{name}."
        kind = group.get("format") or stored.get("format")
        if kind not in _FORMATS:
            raise reader.refused(f"{where}format", kind, " or ".join(_FORMATS))
        _check(reader, f"{here}weights", group.get("weights"), _WEIGHTS)
        if group.get("input_activations") is not None:
            _check(reader, f"{here}input_activations", group["input_activations"], _ACTIVATIONS)
        if group.get("output_activations") is not None:
            raise reader.refused(f"{here}output_activations", group["output_activations"], "null")


def _check(reader: ConfigReader, where: str, given: Any, wanted: Mapping[str, Any]) -> None:
    if not isinstance(given, Mapping):
        raise reader.refused(where, given, "an object")
    for key, value in wanted.items():
        if given.get(key) != value:
            raise reader.refused(f"{where}.{key}", given.get(key), repr(value))
