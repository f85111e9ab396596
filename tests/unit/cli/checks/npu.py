"""An Ascend machine as Huawei's documents and public bug reports show it. Written by hand: nobody recorded any of this on hardware here."""

from __future__ import annotations

from typing import Any

DRIVER = """\
Version=24.1.rc3
ascendhal_version=7.35.23
Innerversion=V100R001C19SPC001B124
compatible_version=[V100R001C13],[V100R001C15],[V100R001C17],[V100R001C18],[V100R001C19]
compatible_version_fw=[7.0.0,7.5.99]
package_version=24.1.rc3
"""
FIRMWARE = "Version=7.5.0.1.129\nfirmware_version=1.0\n"
SMI_910B = """\
+------------------------------------------------------------------------------------------------+
| npu-smi 24.1.rc3                 Version: 24.1.rc3                                             |
+---------------------------+---------------+----------------------------------------------------+
| NPU   Name                | Health        | Power(W)    Temp(C)           Hugepages-Usage(page)|
| Chip                      | Bus-Id        | AICore(%)   Memory-Usage(MB)  HBM-Usage(MB)        |
+===========================+===============+====================================================+
| 0     910B4               | OK            | 88.2        30                0    / 0             |
| 0                         | 0000:C1:00.0  | 0           0    / 0          26838/ 32768         |
+===========================+===============+====================================================+
| 1     910B4               | {health:<13} | 87.0        30                0    / 0             |
| 0                         | 0000:C2:00.0  | 0           0    / 0          2935 / 32768         |
+===========================+===============+====================================================+
| NPU     Chip              | Process id    | Process name             | Process memory(MB)      |
+===========================+===============+====================================================+
| 0       0                 | 1234          | python3                  | 23900                   |
+===========================+===============+====================================================+
"""
SMI_310P = """\
+--------------------------------------------------------------------------------------------------------+
| npu-smi 24.1.rc3                                 Version: 24.1.rc3                                     |
+-------------------------------+-----------------+------------------------------------------------------+
| NPU     Name                  | Health          | Power(W)     Temp(C)           Hugepages-Usage(page) |
| Chip    Device                | Bus-Id          | AICore(%)    Memory-Usage(MB)                        |
+===============================+=================+======================================================+
| 1       310P3                 | OK              | NA           42                0     / 0             |
| 0       0                     | 0000:01:00.0    | 0            1731 / 44215                            |
+-------------------------------+-----------------+------------------------------------------------------+
| 1       310P3                 | OK              | NA           41                0     / 0             |
| 1       1                     | 0000:01:00.0    | 0            1435 / 43693                            |
+===============================+=================+======================================================+
"""
CHECKER = """\
class GPUEnvChecker:
    def __init__(self):
        self.version = ["10.1"]


class AscendEnvChecker:
    def __init__(self, library_path):
        self.version = ["7.8", "8.2", "8.3"]
"""
TOOLKIT = "usr/local/Ascend/ascend-toolkit/latest"


def make(machine: Any, cann: str = "7.8.0.1.121") -> None:
    """A machine with two NPUs, a driver, CANN and its environment variables, all in order."""
    machine.write("usr/local/Ascend/driver/version.info", DRIVER)
    machine.write("usr/local/Ascend/driver/lib64/driver/libascend_hal.so")
    machine.write("usr/local/Ascend/firmware/version.info", FIRMWARE)
    for name in ("davinci0", "davinci1", "davinci_manager", "devmm_svm", "hisi_hdc"):
        machine.write(f"dev/{name}")
    machine.write(f"{TOOLKIT}/compiler/version.info", f"Version={cann}\nversion_dir=8.2.RC1\n")
    machine.write(
        f"{TOOLKIT}/aarch64-linux/ascend_toolkit_install.info", "package_name=Ascend-cann-toolkit\nversion=8.2.RC1\n"
    )
    machine.write(f"{TOOLKIT}/opp/built-in/op_impl/ai_core/tbe/__init__.py")
    machine.write("usr/local/Ascend/ascend-toolkit/set_env.sh")
    (machine.root / TOOLKIT / "lib64").mkdir()
    machine.install("mindspore", "2.7.1")
    machine.write("site/mindspore/__init__.py")
    machine.write("site/mindspore/run_check/_check_version.py", CHECKER)
    home = machine.root / TOOLKIT
    driver = machine.root / "usr/local/Ascend/driver/lib64/driver"
    machine.environ = {
        "ASCEND_HOME_PATH": str(home),
        "ASCEND_OPP_PATH": str(home / "opp"),
        "PATH": f"{home}/compiler/ccec_compiler/bin:/usr/bin:/bin",
        "PYTHONPATH": f"{home}/opp/built-in/op_impl/ai_core/tbe",
        "LD_LIBRARY_PATH": f"{home}/lib64:{driver}",
    }


def npu_smi(machine: Any, prints: str, code: int = 0) -> None:
    """A command npu-smi that prints something."""
    text = machine.write("smi.txt", prints)
    file = machine.write("usr/local/sbin/npu-smi", f"#!/bin/sh\n[ \"$1\" = info ] && cat '{text}'\nexit {code}\n")
    file.chmod(0o755)
