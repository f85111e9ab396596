"""Whether models can be fetched: the hub reachable, or the environment meant to be offline. Never a problem by itself."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator, Mapping
from urllib.parse import urlparse
from urllib.request import proxy_bypass

from vllm_mindspore.cli.checks.disk import hub_home
from vllm_mindspore.cli.checks.variables import masked
from vllm_mindspore.cli.doctor.finding import Finding, note, ok
from vllm_mindspore.cli.doctor.surroundings import Surroundings

NAME = "hub"
LOOKS_AT = "whether models can be fetched from the hub, or only be read from disk"
FOLLOWS = ()

_SECONDS = 3.0
_TRUE = ("1", "ON", "YES", "TRUE")
_PORTS = {"http": 80, "https": 443}


def run(around: Surroundings) -> Iterator[Finding]:
    variable = offline_by(around)
    cached = len(list((hub_home(around.environ) / "hub").glob("models--*")))
    there = f"{cached} model{'' if cached == 1 else 's'} in the cache"
    if variable:
        yield ok(f"Offline, as {variable} says; {there}")
        return
    endpoint = around.environ.get("HF_ENDPOINT") or "https://huggingface.co"
    proxy = _proxy(around.environ, endpoint)
    error = _unreachable(proxy or endpoint)
    endpoint = masked("HF_ENDPOINT", endpoint)
    by = f" through the proxy {urlparse(proxy).hostname}" if proxy else ""
    if error:
        yield note(
            f"{endpoint} cannot be reached{by} ({error}): serve a model from a folder or from the cache; {there}"
        )
    else:
        yield ok(f"{endpoint} can be reached{by}; {there}")


def _proxy(environ: Mapping[str, str], url: str) -> str | None:
    """Through which the hub's client asks for an address, with its scheme."""
    # What is in lower case counts, even if it is empty, as in urllib.request.getproxies_environment, which knows this process's alone.
    names = sorted((name for name in environ if name.lower().endswith("_proxy")), key=str.islower)
    proxies = {name.lower()[: -len("_proxy")]: environ[name] for name in names}
    parts = urlparse(url)
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    if not proxy or proxy_bypass(parts.netloc.rpartition("@")[2], proxies):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def offline_by(around: Surroundings) -> str | None:
    """The variable that keeps the hub's client offline."""
    return next(
        (name for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE") if around.environ.get(name, "").upper() in _TRUE),
        None,
    )


def _unreachable(url: str) -> str | None:
    """Why there is no connection. Looking up a name may hang for longer than any time limit, so a thread does it."""
    errors = [f"no answer within {_SECONDS:g} s"]
    thread = threading.Thread(target=lambda: errors.append(_connect(url)), daemon=True)
    thread.start()
    thread.join(_SECONDS)
    return errors[-1] or None


def _connect(url: str) -> str:
    parts = urlparse(url)
    try:
        port = parts.port or _PORTS.get(parts.scheme, 443)
        with socket.create_connection((parts.hostname or "", port), timeout=_SECONDS):
            return ""
    except (OSError, ValueError) as error:
        return getattr(error, "strerror", None) or str(error) or type(error).__name__
