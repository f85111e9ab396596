"""Write locks/<extra>.txt for each release of vLLM in version_matrix.toml: `make locks`.

A lock pins everything that the package and the extra bring in, with hashes, for x86-64 and aarch64 and every Python that the project
takes; which markers that is stands in pyproject.toml, [tool.uv]. Its head keeps a digest of what it was made from, so that a stale one is
found without asking an index: `python ci/lock.py --check`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
LOCKS = ROOT / "locks"

HEAD = """\
# vLLM {vllm} and all that goes with it, for Linux on x86-64 and aarch64, Python {python}. Made by `make locks`.
# inputs: {digest}
#
#     pip install --require-hashes -r locks/{extra}.txt && pip install --no-deps .
#
# On aarch64 there is only an sdist of this vLLM: set VLLM_TARGET_DEVICE=empty before, so that it builds no kernels of its own.
# torch {torch} is the one that goes with it, on aarch64 a build for the CPU.
"""


def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def releases() -> list[dict[str, Any]]:
    return tomllib.loads((ROOT / "version_matrix.toml").read_text(encoding="utf-8"))["release"]


def digest(extra: str) -> str:
    """Of everything that the resolver is told."""
    whole = project()
    inputs = [
        whole["project"]["requires-python"],
        whole["project"]["dependencies"],
        whole["project"]["optional-dependencies"][extra],
        whole["tool"]["uv"]["environments"],
    ]
    return hashlib.sha256(json.dumps(inputs).encode()).hexdigest()


def is_stale(extra: str) -> bool:
    lock = LOCKS / f"{extra}.txt"
    return not lock.is_file() or f"# inputs: {digest(extra)}\n" not in lock.read_text(encoding="utf-8")


def write(release: dict[str, Any]) -> None:
    extra = release["extra"]
    options = ["--universal", "--python-version", "3.9", "--no-python-downloads", "--generate-hashes"]
    compiled = subprocess.run(
        [
            "uv",
            "pip",
            "compile",
            "--quiet",
            *options,
            "--no-header",
            "--no-annotate",
            "--extra",
            extra,
            "pyproject.toml",
        ],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    ).stdout
    head = HEAD.format(
        vllm=release["vllm"],
        python=project()["project"]["requires-python"],
        digest=digest(extra),
        extra=extra,
        torch=release["aarch64"]["torch"].lstrip("="),
    )
    LOCKS.mkdir(exist_ok=True)
    (LOCKS / f"{extra}.txt").write_text(head + compiled, encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description="Write the locks of all releases of vLLM.")
    parser.add_argument("--check", action="store_true", help="write nothing, name the locks that are stale")
    options = parser.parse_args()
    stale = [release["extra"] for release in releases() if is_stale(release["extra"])]
    if options.check:
        for extra in stale:
            print(f"locks/{extra}.txt is not made from the present pyproject.toml: run make locks", file=sys.stderr)
        return 1 if stale else 0
    for release in releases():
        write(release)
    return 0


if __name__ == "__main__":
    sys.exit(main())
