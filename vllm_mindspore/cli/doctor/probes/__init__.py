"""What runs in the processes that look for the checks: a module each, with a function `look(tell, ...)`.

`tell(part, value)` hands over a JSON value at once, so that what was found before a crash is not lost.
"""

from __future__ import annotations

import gc
import json
import os
import traceback
from importlib import import_module
from pathlib import Path
from typing import Any, Callable

Tell = Callable[[str, Any], None]


def main(name: str, folder: str, arguments: str) -> None:
    """Run one probe; each part that it tells becomes a file."""

    def tell(part: str, value: Any) -> None:
        unfinished = Path(folder) / f"{part}.part"
        unfinished.write_text(json.dumps(value), encoding="utf-8")
        os.replace(unfinished, Path(folder) / f"{part}.json")

    gc.disable()  # a fifth of the time that importing vLLM takes
    import_module(f"{__name__}.{name}").look(tell, **json.loads(arguments))


def failure(error: BaseException) -> dict[str, Any]:
    """What is to be known of an exception: its message, where it was raised, and which packages it came through."""
    through: dict[str, None] = {}
    place = ""
    link: BaseException | None = error
    while link is not None:
        for frame, line in traceback.walk_tb(link.__traceback__):
            module = str(frame.f_globals.get("__name__", ""))
            top = module.partition(".")[0]
            if top not in ("importlib", "__main__", "") and not module.startswith(__name__):
                through[top] = None
                if link is error:
                    place = f"{module.replace('.', '/')}:{line}"
        if isinstance(link, ModuleNotFoundError) and link.name:
            through[link.name.partition(".")[0]] = None
        link = link.__cause__ or link.__context__
    message = " ".join(str(error).split())
    return {
        "error": f"{type(error).__name__}: {message}" if message else type(error).__name__,
        "at": place,
        "through": list(through),
    }
