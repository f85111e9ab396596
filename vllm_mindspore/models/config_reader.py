"""Values of a checkpoint's configuration, each checked, and the sentences that say what is wrong with one."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vllm_mindspore.errors import UserError

_NO_DEFAULT = (
    *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"),
    *("kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim"),
    *("n_routed_experts", "num_experts", "num_local_experts", "num_experts_per_tok", "moe_intermediate_size"),
    "shared_expert_intermediate_size",
)
"""Keys without which nothing is known, although transformers would fill in those of the largest model of the family."""


class ConfigReader:
    """Values of a configuration, each checked, and messages that say where it stands."""

    def __init__(self, config: Any, source: Path) -> None:
        self._values: Mapping[str, Any] = config if isinstance(config, Mapping) else config.to_dict()
        self._where = f"{source}/config.json" if source.is_dir() else str(source)
        self._within = ""
        if source.is_dir() and not isinstance(config, Mapping):
            self._refuse_defaults(config, source / "config.json")

    def _refuse_defaults(self, config: Any, file: Path) -> None:
        """Transformers fills in what a file leaves out; a value that is neither in the file nor overridden is no value."""
        try:
            written = json.loads(file.read_text())
            defaults = type(config)().to_dict()
        except (OSError, ValueError, TypeError):
            return
        for key in _NO_DEFAULT:
            if key in defaults and key not in written and self._values.get(key) == defaults[key]:
                raise self.missing(key)

    def get(self, key: str, default: Any = None) -> Any:
        return self._values.get(key, default)

    def part(self, key: str) -> ConfigReader:
        """Of the object that stands there."""
        values = self.get(key)
        if not isinstance(values, Mapping):
            raise self.illegal(key, "an object or null")
        part = ConfigReader(values, Path(self._where))
        part._within = f"{self._within}{key}."
        return part

    def missing(self, key: str) -> UserError:
        return UserError(f"{self._where} has no {self._within}{key}: add it, or fetch the checkpoint again.")

    def illegal(self, key: str, expected: str) -> UserError:
        return self.refused(key, self.get(key), expected)

    def refused(self, key: str, value: Any, expected: str) -> UserError:
        """Of a key that may lie within others, joined by dots."""
        return UserError(f"{self._where} has {self._within}{key} = {value!r}, it must be {expected}.")

    def refuse_unless(self, neutral: Mapping[str, Any]) -> None:
        """Refuse keys that nobody here follows, but for the value of each that changes nothing."""
        for key, value in neutral.items():
            if self.get(key, value) not in (None, value):
                raise self.illegal(key, "null" if value is None else str(value).lower())

    def count(self, key: str) -> int:
        value = self.get(key)
        if value is None:
            raise self.missing(key)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise self.illegal(key, "a positive whole number")
        return value

    def index(self, key: str) -> int:
        """A whole number that may be 0, which it is by default."""
        return 0 if not self.get(key) else self.count(key)

    def flag(self, key: str, default: bool = False) -> bool:
        value = self.get(key)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self.illegal(key, "true or false")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        value = self.get(key, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
            raise self.illegal(key, "a positive number")
        return float(value)
