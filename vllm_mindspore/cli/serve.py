"""`vllm-mindspore serve`: `vllm serve` with the same flags, sure to run on MindSpore or to say why not."""

from __future__ import annotations

import multiprocessing
import os
import sys
import traceback
from collections.abc import Sequence
from importlib.metadata import distribution
from pathlib import Path
from typing import Callable

from vllm_mindspore.errors import UserError
from vllm_mindspore.origin import install_again
from vllm_mindspore.plugin import PluginFailed

_PLUGIN = "mindspore"
"""Name of our entry points, by which VLLM_PLUGINS lets them in."""
_OTHER_WAYS = ("-h", "--help", "--model", "--config")
"""Flags of vLLM that need no MODEL, or have one of their own."""
_CONFIGURING = {
    "parse_args": "",
    "create_engine_config": "",
    "create_server_socket": "--host and --port name no address that is free here: ",
}
"""Functions of every vLLM whose errors are the user's to mend, and what is said before them."""
_SECONDS_TO_END = 10
"""For an engine that is told to, before it is killed."""


def run(arguments: Sequence[str]) -> int:
    """Serve a model.

    Args:
        arguments: what `vllm serve` would get.

    Returns:
        The exit code, once the server has stopped.

    Raises:
        UserError: vLLM would not run on our platform, or cannot do what is asked.
    """
    if not _names_a_model(arguments):
        print(
            "vllm-mindspore serve: MODEL is missing: name a folder or an id on the Hugging Face hub.", file=sys.stderr
        )
        return 2
    _check_folder(arguments[0])
    vllm = _vllm()
    from vllm_mindspore.compat.common.refusal import StartupRefused

    sys.argv = ["vllm", "serve", *arguments]
    try:
        vllm()
    except StartupRefused as refusal:
        _end_engines()
        raise UserError(str(refusal)) from None
    except (ValueError, OSError, OverflowError) as error:
        sentence = _sentence(error)
        if sentence is None:
            raise
        _end_engines()
        raise UserError(sentence) from None
    return 0


def _names_a_model(arguments: Sequence[str]) -> bool:
    """Whether vLLM would not take its default model, as far as can be told without vLLM's list of flags."""
    for argument in arguments:
        if argument.partition("=")[0] in _OTHER_WAYS:
            return True
        if not argument.startswith("-") and not argument.isdecimal():  # a number is a flag's value
            return True
    return False


def _check_folder(model: str) -> None:
    if model.startswith(("/", "./", "../", "~")) and not Path(model).exists():
        raise UserError(f"{model} does not exist: name the model's folder, or its id on the Hugging Face hub.")


def _vllm() -> Callable[[], object]:
    """The function behind the command `vllm`, which releases of vLLM keep in different places.

    Raises:
        UserError: vLLM would not run on our platform.
    """
    allowed = os.environ.get("VLLM_PLUGINS")
    if allowed is not None and _PLUGIN not in allowed.split(","):
        raise UserError(
            f"VLLM_PLUGINS={allowed!r} keeps vLLM from loading this plugin: add {_PLUGIN} to it or unset it."
        )
    try:
        from vllm.platforms import current_platform
        from vllm.plugins import load_general_plugins

        load_general_plugins()  # where vLLM 0.6.6, which has no plugins for platforms, gets ours
        chosen = type(current_platform)
        command = _command() if chosen.__module__.startswith("vllm_mindspore.") else None
    except ModuleNotFoundError as error:
        raise UserError(
            f"vLLM cannot be imported ({error}): install it, for instance with {install_again('vllm091')}."
        ) from None
    except (RuntimeError, PluginFailed) as error:  # two platform plugins, or ours has found nothing to offer
        raise UserError(str(error)) from None
    except Exception as error:
        raise UserError(
            f"vLLM cannot be imported ({_one_line(error)}): run vllm-mindspore check-env to see why."
        ) from None
    if command is None:
        raise UserError(
            f"vLLM picked the platform {chosen.__module__}.{chosen.__qualname__} instead of this plugin's: "
            "run vllm-mindspore check-env to see why."
        )
    return command


def _command() -> Callable[[], object]:
    (command,) = (script for script in distribution("vllm").entry_points if script.name == "vllm")
    return command.load()


def _sentence(error: Exception) -> str | None:
    """What vLLM has against its options, or None if the error came from elsewhere."""
    from pydantic import ValidationError

    functions = [frame.f_code.co_name for frame, _ in traceback.walk_tb(error.__traceback__)]
    said = next((_CONFIGURING[name] for name in functions if name in _CONFIGURING), None)
    if said is None:
        return None
    if isinstance(error, ValidationError):
        return said + " ".join(error.errors()[0]["msg"].removeprefix("Value error, ").split())
    return said + _one_line(error)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _end_engines() -> None:
    """Those that vLLM 0.6.6 starts before it looks at the options."""
    for engine in multiprocessing.active_children():
        engine.terminate()
        engine.join(_SECONDS_TO_END)
        engine.kill()  # nothing to one that has ended
