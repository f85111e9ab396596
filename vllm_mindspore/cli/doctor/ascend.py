"""Where driver, devices and CANN lie on an Ascend machine. Nobody ran this on one: the layout is that of Huawei's documents."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from pathlib import Path

from vllm_mindspore.cli.doctor.surroundings import Surroundings

_INSTALLED = "usr/local/Ascend"
_TOOLKITS = ("ascend-toolkit/latest", "cann", "nnae/latest")


def is_there(around: Surroundings) -> bool:
    """Whether anything of Ascend is on this machine."""
    found = driver(around).is_dir() or toolkit(around) is not None or npu_smi(around) is not None
    return found or bool(device_files(around))


def driver(around: Surroundings) -> Path:
    """The driver's folder, whether it is there or not."""
    return around.root / _INSTALLED / "driver"


def firmware(around: Surroundings) -> Path:
    """The firmware's folder, whether it is there or not (containers do not have it)."""
    return around.root / _INSTALLED / "firmware"


def device_files(around: Surroundings) -> dict[int, Path]:
    """Number of each device -> its file."""
    files = (around.root / "dev").glob("davinci*")
    return {int(file.name[7:]): file for file in sorted(files) if re.fullmatch(r"davinci\d+", file.name)}


def npu_smi(around: Surroundings) -> str | None:
    """The command that tells of the devices."""
    beside = around.root / "usr" / "local" / "sbin" / "npu-smi"
    return shutil.which("npu-smi", path=around.environ.get("PATH", "")) or (str(beside) if beside.is_file() else None)


def toolkit(around: Surroundings) -> Path | None:
    """CANN's folder: the one that the environment names, else one in a usual place."""
    for variable in ("ASCEND_HOME_PATH", "ASCEND_TOOLKIT_HOME"):
        if around.environ.get(variable):
            return Path(around.environ[variable])
    home = Path(around.environ.get("HOME", "/nowhere")) / "Ascend"
    places = [root / place for root in (around.root / _INSTALLED, home) for place in _TOOLKITS]
    return next((place for place in places if place.is_dir()), None)


def set_env(folder: Path) -> Path | None:
    """The script that sets CANN's environment variables."""
    return next((file for file in (folder / "set_env.sh", folder.parent / "set_env.sh") if file.is_file()), None)


def read_info(file: Path) -> Mapping[str, str]:
    """Keys and values of a `version.info` or `*_install.info`; empty if it cannot be read."""
    try:
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return {}
    pairs = (line.partition("=") for line in lines if "=" in line)
    return {key.strip(): value.strip() for key, _, value in pairs}
