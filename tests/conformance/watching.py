"""Runs a small engine in this process and prints, as JSON, which attributes of vLLM are not what they were when their module was imported.

Run as a script: `python watching.py MODEL PATCH`. PATCH is Python, run at the end; two lines tell what is seen before and after it. Modules are looked at right after they were executed: their attributes, those of the classes that
they define, and of which class each of these objects is, so that an object that is given another one is seen.
"""

from __future__ import annotations

import importlib.abc
import importlib.util
import json
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

OF_PYTHON = ("__dict__", "__weakref__", "__doc__", "__abstractmethods__", "_abc_impl", "__annotations__")

taken: dict[str, dict[str, tuple[int, int]]] = {}
"""Module -> attribute -> identity of its value and of the value's class."""
held: list[Any] = []
"""What was seen: no identity is used again."""


def attributes(module: ModuleType) -> Iterator[tuple[str, Any]]:
    """Dotted names and values of a module's attributes and of those of the classes that it defines."""
    for name, value in list(vars(module).items()):
        if name.startswith("__"):
            continue
        yield f"{module.__name__}.{name}", value
        if isinstance(value, type) and value.__module__ == module.__name__:
            for inner, attribute in list(vars(value).items()):
                if inner not in OF_PYTHON:
                    yield f"{module.__name__}.{name}.{inner}", attribute


class Watcher(importlib.abc.MetaPathFinder):
    """Looks at each of vLLM's modules as soon as it is executed."""

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> Any:
        if fullname.partition(".")[0] != "vllm":
            return None
        others = (finder for finder in sys.meta_path if finder is not self)
        spec = next(filter(None, (finder.find_spec(fullname, path, target) for finder in others)), None)
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            seen = list(attributes(module))
            held.extend(value for _, value in seen)
            taken[module.__name__] = {name: (id(value), id(type(value))) for name, value in seen}

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def is_ours(value: Any) -> bool:
    """Whether a value is code of ours or an object of a class of ours."""
    parts = (value, type(value), getattr(value, "__func__", None), getattr(value, "fget", None), getattr(value, "__wrapped__", None))  # fmt: skip
    return any(str(getattr(part, "__module__", "")).startswith("vllm_mindspore") for part in parts)


def is_pydantics(value: Any) -> bool:
    """Pydantic replaces the constructor of a dataclass once it can make sense of its annotations."""
    return "/pydantic/" in getattr(getattr(value, "__code__", None), "co_filename", "")


def changes() -> list[str]:
    """Attributes that hold other code, or any object of ours, or whose object was given another class.

    Plain data that changed is left out: vLLM keeps state of its own in its modules. What we might write there is found in our sources, see
    `test_patches.py`.
    """
    found: dict[Any, str] = {}
    for name, before in taken.items():
        now = dict(attributes(sys.modules[name]))
        for attribute, value in now.items():
            old = before.get(attribute)
            if old is None or old[0] != id(value):
                if (old is not None and callable(value) and not is_pydantics(value)) or is_ours(value):
                    found.setdefault(attribute, attribute)
            elif old[1] != id(type(value)):
                found.setdefault(id(value), f"{attribute}.__class__")  # the same object has names in many modules
        for attribute in before.keys() - now.keys():
            found[attribute] = f"{attribute} (deleted)"
    return sorted(found.values())


def main(model: str, patch: str) -> None:
    sys.meta_path.insert(0, Watcher())
    from vllm import LLM, SamplingParams

    llm = LLM(model, max_model_len=64, max_num_seqs=2, num_gpu_blocks_override=16)
    params = SamplingParams(max_tokens=4, temperature=0.8, seed=1, logprobs=1, prompt_logprobs=1)
    llm.generate([{"prompt_token_ids": [5, 6, 7]}], params, use_tqdm=False)
    print(json.dumps(changes()))
    exec(patch, {})
    print(json.dumps(changes()))


if __name__ == "__main__":
    main(*sys.argv[1:])
