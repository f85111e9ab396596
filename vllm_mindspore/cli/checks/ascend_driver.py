"""Driver and firmware of the NPUs, and the device files. Nobody ran this on an NPU."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from packaging.version import InvalidVersion, Version

from vllm_mindspore.cli.doctor import ascend
from vllm_mindspore.cli.doctor.finding import Finding, Remedy, note, ok, problem
from vllm_mindspore.cli.doctor.surroundings import Surroundings

NAME = "ascend-driver"
LOOKS_AT = "driver, firmware and device files of NPUs"
FOLLOWS = ()

ABOUT = {"ascend-driver"}
_BESIDE = ("davinci_manager", "devmm_svm", "hisi_hdc")


def run(around: Surroundings) -> Iterator[Finding]:
    if not ascend.is_there(around):
        yield ok("No driver, device file, npu-smi or CANN is here: models run on the CPU")
        return
    yield note("An Ascend machine: this release computes on its CPU all the same, as it has no Ascend backend yet")
    yield from _versions(around)
    yield from _files(around)


def _versions(around: Surroundings) -> Iterator[Finding]:
    folder = ascend.driver(around)
    info = ascend.read_info(folder / "version.info")
    version = info.get("package_version") or info.get("Version")
    if version is None:
        mount = Remedy(
            f"docker run -v {folder}:{folder} ...",
            "where the container is started; outside of one, install the driver as root",
        )
        yield problem(f"{folder / 'version.info'} does not tell a driver's version: no driver is here", mount, ABOUT)
        return
    firmware = ascend.read_info(ascend.firmware(around) / "version.info").get("Version")
    allowed = re.fullmatch(r"\[([\d.]+),([\d.]+)\]", info.get("compatible_version_fw", ""))
    if firmware is None:
        yield ok(f"Driver {version}; the firmware's version is not told here, as is usual in a container")
    elif allowed and not _between(firmware, allowed[1], allowed[2]):
        again = Remedy(
            "./Ascend-hdk-<chip>-npu-firmware_<version>.run --full && reboot",
            "as root, with the firmware of the driver's release",
        )
        yield problem(f"Firmware {firmware}, driver {version} needs {allowed[1]} to {allowed[2]}", again, ABOUT)
    else:
        yield ok(f"Driver {version}, firmware {firmware}")


def _files(around: Surroundings) -> Iterator[Finding]:
    devices = ascend.device_files(around)
    folder = around.root / "dev"
    missing = [name for name in _BESIDE if not (folder / name).exists()]
    if not devices:
        missing.insert(0, "davinci0")
    if missing:
        flags = " ".join(f"--device /dev/{name}" for name in missing)
        remedy = Remedy(
            f"docker run {flags} ...", "where the container is started; outside of one, load the driver as root"
        )
        yield problem(
            f"{', '.join(f'/dev/{name}' for name in missing)} missing: no process can use an NPU", remedy, ABOUT
        )
    closed = [str(file) for file in devices.values() if not os.access(file, os.R_OK | os.W_OK)]
    if closed:
        yield problem(
            f"{', '.join(closed)} may not be read and written by this user",
            Remedy("usermod -aG HwHiAiUser $USER", "as root, then log in again"),
            ABOUT,
        )


def _between(version: str, low: str, high: str) -> bool:
    try:
        return Version(low) <= Version(".".join(version.split(".")[:3])) <= Version(high)
    except InvalidVersion:
        return True
