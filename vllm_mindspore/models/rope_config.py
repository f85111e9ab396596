"""Rotary position embedding, with the names of `config.json`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from vllm_mindspore.models.config_reader import ConfigReader

_NUMBERS = (
    *("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
    *("attention_factor", "beta_fast", "beta_slow"),
)
_MAGNITUDES = ("mscale", "mscale_all_dim")
"""Of which 0 is as good as none."""
_NEEDED = {
    "default": (),
    "linear": ("factor",),
    "dynamic": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
    "yarn": (),
}
"""What each kind cannot do without."""
_NOT_FOLLOWED = {"partial_rotary_factor": 1.0, "attn_factor": 1.0, "extrapolation_factor": 1.0, "truncate": True}
"""What some vLLM or transformers follows, and the value that changes nothing."""


@dataclass(frozen=True)
class RopeConfig:
    """How positions turn queries and keys."""

    theta: float
    kind: str = "default"
    """default, linear, dynamic, llama3 or yarn."""
    parameters: Mapping[str, float] = field(default_factory=dict)
    """The numbers among the rest of `rope_scaling`."""


def read_rope(reader: ConfigReader) -> RopeConfig:
    """Of `rope_theta` and `rope_scaling`, or of `rope_parameters`, which transformers 5 writes in place of both.

    Raises:
        UserError: a key is missing or has a value that the networks cannot follow.
    """
    theta = reader.number("rope_theta", 10000.0)
    here = [key for key in ("rope_parameters", "rope_scaling") if reader.get(key) is not None]
    if not here:
        return RopeConfig(theta)
    if len(here) > 1 and reader.get(here[0]) != reader.get(here[1]):
        raise reader.illegal("rope_scaling", "null, as there is rope_parameters")
    key = here[0]
    given = reader.part(key)
    kind = given.get("rope_type", given.get("type", "default" if key == "rope_parameters" else None))
    if not isinstance(kind, str) or kind not in _NEEDED:
        raise reader.illegal(key, f"of the type {', '.join(_NEEDED)}")
    parameters = {name: given.number(name) for name in _NUMBERS if given.get(name) is not None}
    parameters.update({name: given.number(name) for name in _MAGNITUDES if given.get(name) not in (None, 0)})
    missing = [name for name in _NEEDED[kind] if name not in parameters]
    if kind == "yarn" and not parameters.keys() & {"factor", "original_max_position_embeddings"}:
        missing = ["factor"]
    if missing:
        raise reader.illegal(key, f"complete, {missing[0]} is missing")
    given.refuse_unless(_NOT_FOLLOWED)
    return RopeConfig(given.number("rope_theta", theta), kind, parameters)
