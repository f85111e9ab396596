"""What an adapter relies on in vLLM, written down, and how the installed vLLM differs from it.

`compat/<adapter>/contract.toml` maps dotted names of vLLM to what they are: a function to its parameters, a class to what its constructor
takes, "field" of a class's objects, "attribute" where nothing matters but that it is there. The names (and "attribute", if that is all that
is to be held) are chosen by hand, the rest is written by `ci/write_contract.py`, which fills in empty values from the installed vLLM.
Imports no vLLM before it is asked to look.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import json
import sys
import textwrap
from collections.abc import Mapping
from enum import Enum
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FILE = "contract.toml"
_FIELD, _ATTRIBUTE = "field", "attribute"
_HEAD = """\
# What this adapter relies on in vLLM: a function's parameters, what a class is made from, a field of its objects, or that there is something
# of that name. The names are chosen by hand, what they stand for is written, in an environment with that vLLM, by
# python ci/write_contract.py {adapter}

"""


def contract_file(adapter: str) -> Path:
    """Where an adapter's contract lies, whether there is one or not."""
    compat: Any = import_module("vllm_mindspore.compat")
    return Path(compat.__file__).parent / adapter / FILE


def contract(adapter: str) -> dict[str, str]:
    """Dotted name -> what it is. Empty if the adapter has no contract."""
    file = contract_file(adapter)
    if not file.is_file():
        return {}
    written: dict[str, str] = tomllib.loads(file.read_text(encoding="utf-8"))
    return written


def differences(written: Mapping[str, str]) -> list[str]:
    """A sentence for each name that is not what the contract says. Imports the modules of vLLM that it names.

    What hangs on a module or class that is not there is not named one by one.
    """
    sentences: dict[str, None] = {}
    for name, expected in written.items():
        try:
            found = describe(name)
        except Missing as missing:
            sentences[str(missing)] = None
            continue
        if expected not in (found, _ATTRIBUTE):
            sentences[f"{name} is {_in_words(found)} and not {_in_words(expected)}."] = None
    return list(sentences)


def describe(name: str) -> str:
    """What a dotted name of vLLM stands for, as a contract writes it.

    Raises:
        Missing: there is no such thing.
    """
    holder, value = _resolve(name)
    if isinstance(value, type) and issubclass(value, Enum):
        return _ATTRIBUTE  # how it is called is Python's matter
    if isinstance(value, type) or inspect.isroutine(value):
        try:
            return _parameters(inspect.signature(value))
        except (ValueError, TypeError):
            return _ATTRIBUTE
    if isinstance(holder, type) and name.rpartition(".")[2] in _fields(holder):
        return _FIELD
    return _ATTRIBUTE


class Missing(Exception):
    """A module, class or attribute that vLLM does not have."""


def _resolve(name: str) -> tuple[Any, Any]:
    """What holds the attribute that a dotted name ends with, and its value (None for a field that only objects have)."""
    parts = name.split(".")
    holder: Any = import_module(parts[0])
    for i, part in enumerate(parts[1:], 1):
        here, last = ".".join(parts[:i]), i == len(parts) - 1
        try:
            value = inspect.getattr_static(holder, part) if isinstance(holder, type) else getattr(holder, part)
        except AttributeError:
            if isinstance(holder, ModuleType):
                value = _submodule(here, part, last)
            elif last and isinstance(holder, type) and part in _fields(holder):
                return holder, None
            else:
                raise Missing(f"{here} has no {part}.") from None
        if last:
            # Methods as they are called, but for their self.
            return holder, getattr(value, "__func__", value)
        holder = value
    return None, holder


def _submodule(package: str, name: str, last: bool) -> ModuleType:
    try:
        return import_module(f"{package}.{name}")
    except ModuleNotFoundError as error:
        if error.name in (package, f"{package}.{name}"):
            raise Missing(f"{package} has no {name}." if last else f"{package} has no module {name}.") from None
        raise Missing(f"{package}.{name} does not import: {error}.") from None
    except Exception as error:
        raise Missing(f"{package}.{name} does not import: {error}.") from None


@cache
def _fields(kind: type) -> set[str]:
    """Names that a class's objects carry: fields of dataclasses and msgspec structs, annotations, what `__init__` sets."""
    names: set[str] = set()
    for base in kind.__mro__:
        names |= set(vars(base).get("__annotations__", {}))
        structure = vars(base).get("__struct_fields__")
        names |= set(structure if isinstance(structure, tuple) else ())
        if dataclasses.is_dataclass(base):
            names |= {field.name for field in dataclasses.fields(base)}
        names |= _set_in(base)
    return names


def _set_in(kind: type) -> set[str]:
    """Attributes that a class's own methods set on self."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(kind)))
    except (OSError, TypeError, SyntaxError):
        return set()
    return {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.ctx, ast.Store)
        and isinstance(node.value, ast.Name)
        and node.value.id == "self"
    }


def _parameters(signature: inspect.Signature) -> str:
    """Names alone, "=" behind those that may be left out: `(self, logits, *, seed=)`."""
    parts, keyword_only = [], False
    for parameter in signature.parameters.values():
        if parameter.kind is parameter.VAR_POSITIONAL:
            keyword_only = True
            parts.append(f"*{parameter.name}")
            continue
        if parameter.kind is parameter.KEYWORD_ONLY and not keyword_only:
            keyword_only = True
            parts.append("*")
        prefix = "**" if parameter.kind is parameter.VAR_KEYWORD else ""
        parts.append(f"{prefix}{parameter.name}{'' if parameter.default is parameter.empty else '='}")
    return f"({', '.join(parts)})"


def _in_words(what: str) -> str:
    return {_FIELD: "a field", _ATTRIBUTE: "an attribute"}.get(what, f"called with {what}")


def fill_in(file: Path, adapter: str) -> list[str]:
    """Write what each name in a contract stands for in the installed vLLM.

    Returns:
        A sentence for each name that this vLLM does not have. If there is any, the file stays as it is.
    """
    lines, missing = [], []
    for name, by_hand in sorted(tomllib.loads(file.read_text(encoding="utf-8")).items()):
        try:
            found = describe(name)
            lines.append(f"{json.dumps(name)} = {json.dumps(by_hand if by_hand == _ATTRIBUTE else found)}\n")
        except Missing as error:
            missing.append(str(error))
    if not missing:
        file.write_text(_HEAD.format(adapter=adapter) + "".join(lines), encoding="utf-8")
    return list(dict.fromkeys(missing))
