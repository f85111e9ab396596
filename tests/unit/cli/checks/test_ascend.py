"""The Ascend checks, on a machine written by hand (`npu.py`): nobody ran them on one."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.cli.checks import npu
from vllm_mindspore.cli.checks import (
    ascend_cann,
    ascend_devices,
    ascend_driver,
    ascend_environment,
    ascend_network,
    ascend_visibility,
)

ALL = (ascend_driver, ascend_devices, ascend_visibility, ascend_cann, ascend_environment, ascend_network)


@pytest.fixture
def atlas(machine: Any) -> Any:
    npu.make(machine)
    npu.npu_smi(machine, npu.SMI_910B.format(health="OK"))
    return machine


def test_a_machine_without_an_npu_says_so_once(machine: Any) -> None:
    found = [one for check in ALL for one in machine.look(check)]
    assert [one.text for one in found] == ["No driver, device file, npu-smi or CANN is here: models run on the CPU"]


def test_an_atlas_in_order_has_no_problem(atlas: Any) -> None:
    texts = "\n".join(one.text for check in ALL for one in atlas.look(check))
    assert [one.text for check in ALL for one in atlas.problems(check)] == []
    assert "this release computes on its CPU all the same" in texts
    assert "Driver 24.1.rc3, firmware 7.5.0.1.129" in texts
    assert "NPU 0, chip 0: 910B4, OK, 26838 of 32768 MB used" in texts
    assert "NPU 1, chip 0: 910B4, OK, 2935 of 32768 MB used" in texts
    assert "CANN 8.2.RC1 in" in texts
    assert "its compiler 7.8.0.1.121; MindSpore 2.7.1 accepts 7.8, 8.2, 8.3" in texts
    assert "all 2 devices are seen" in texts


def test_a_container_without_the_driver_is_told_to_mount_it(atlas: Any) -> None:
    (atlas.root / "usr/local/Ascend/driver/version.info").unlink()
    (found,) = atlas.problems(ascend_driver)
    assert "no driver is here" in found.text
    assert found.remedy.command.startswith("docker run -v ")


def test_a_firmware_that_the_driver_does_not_take_is_named(atlas: Any) -> None:
    atlas.write("usr/local/Ascend/firmware/version.info", "Version=7.8.0.2.212\n")
    (found,) = atlas.problems(ascend_driver)
    assert found.text == "Firmware 7.8.0.2.212, driver 24.1.rc3 needs 7.0.0 to 7.5.99"


def test_missing_device_files_are_named(atlas: Any) -> None:
    (atlas.root / "dev/devmm_svm").unlink()
    (found,) = atlas.problems(ascend_driver)
    assert found.text == "/dev/devmm_svm missing: no process can use an NPU"
    assert found.remedy.command == "docker run --device /dev/devmm_svm ..."


def test_an_npu_that_is_not_well_is_named(atlas: Any) -> None:
    npu.npu_smi(atlas, npu.SMI_910B.format(health="Alarm"))
    (found,) = atlas.problems(ascend_devices)
    assert found.text == "NPU 1, chip 0: 910B4, Alarm, 2935 of 32768 MB used"
    assert found.remedy.command.endswith("npu-smi info -t health -i 1 -c 0")


def test_the_table_of_a_310p_is_read(machine: Any) -> None:
    devices = ascend_devices.parse(npu.SMI_310P)
    assert [(one.npu, one.chip, one.name, one.used, one.total) for one in devices] == [
        (1, 0, "310P3", 1731, 44215),
        (1, 1, "310P3", 1435, 43693),
    ]


def test_an_npu_smi_that_fails_is_quoted(atlas: Any) -> None:
    npu.npu_smi(atlas, "dcmi module initialize failed. ret is -8005\n", code=255)
    (found,) = atlas.problems(ascend_devices)
    assert "info tells of no NPU: dcmi module initialize failed. ret is -8005" in found.text


def test_an_npu_smi_that_hangs_is_given_up(atlas: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    atlas.write("usr/local/sbin/npu-smi", "#!/bin/sh\nexec sleep 60\n").chmod(0o755)
    monkeypatch.setattr(ascend_devices, "_SECONDS", 0.5)
    (found,) = atlas.problems(ascend_devices)
    assert found.text.endswith("info tells of no NPU: no answer within 0.5 s")


def test_an_npu_smi_that_cannot_be_run_is_named(atlas: Any) -> None:
    atlas.write("usr/local/sbin/npu-smi", "#!/no/such/interpreter\n").chmod(0o755)
    (found,) = atlas.problems(ascend_devices)
    assert "info tells of no NPU: [Errno 2] No such file or directory" in found.text


def test_what_is_not_known_of_the_devices_is_noted(atlas: Any) -> None:
    npu.npu_smi(atlas, npu.SMI_910B.format(health="Warning").replace("910B4", "910A3"))
    unusual, warned = atlas.look(ascend_devices)
    assert (unusual.status, warned.status) == ("note", "note")
    assert unusual.text.endswith("; neither 910B nor 310P")
    assert warned.remedy.command.endswith("npu-smi info -t health -i 1 -c 0")
    (atlas.root / "usr/local/sbin/npu-smi").unlink()
    (found,) = atlas.look(ascend_devices)
    assert found.status == "note"
    assert found.text.startswith("npu-smi is not here")


def test_a_container_may_lack_the_firmwares_version_and_no_device(atlas: Any) -> None:
    (atlas.root / "usr/local/Ascend/firmware/version.info").unlink()
    assert atlas.look(ascend_driver)[1].text.startswith("Driver 24.1.rc3; the firmware's version is not told here")
    for name in ("davinci0", "davinci1"):
        (atlas.root / "dev" / name).unlink()
    (found,) = atlas.problems(ascend_driver)
    assert found.text == "/dev/davinci0 missing: no process can use an NPU"


def test_a_device_that_this_user_may_not_use_is_named(atlas: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ascend_driver.os, "access", lambda file, mode: file.name != "davinci1")
    (found,) = atlas.problems(ascend_driver)
    assert found.text == f"{atlas.root}/dev/davinci1 may not be read and written by this user"
    assert found.remedy.command == "usermod -aG HwHiAiUser $USER"


def test_a_cann_without_its_version_and_a_mindspore_without_its_list_are_told_apart(atlas: Any) -> None:
    (atlas.root / "site/mindspore/run_check/_check_version.py").unlink()
    (found,) = atlas.look(ascend_cann)
    assert found.status == "note"
    assert found.text.endswith("which versions MindSpore 2.7.1 accepts is not known")
    (atlas.root / npu.TOOLKIT / "compiler/version.info").unlink()
    (found,) = atlas.problems(ascend_cann)
    assert "compiler/version.info is missing, so MindSpore cannot tell what it runs on" in found.text


def test_a_cann_that_mindspore_does_not_accept_is_named(machine: Any) -> None:
    npu.make(machine, cann="7.6.0.1.220")
    (found,) = machine.problems(ascend_cann)
    assert "its compiler 7.6.0.1.220; MindSpore 2.7.1 accepts 7.8, 8.2, 8.3" in found.text


def test_a_missing_cann_is_named(atlas: Any) -> None:
    atlas.environ = {"ASCEND_HOME_PATH": "/nowhere/cann"}
    (found,) = atlas.problems(ascend_cann)
    assert found.text == "CANN is not installed in /nowhere/cann; MindSpore 2.7.1 accepts 7.8, 8.2, 8.3"


def test_a_cann_without_operators_is_named(atlas: Any) -> None:
    (atlas.root / npu.TOOLKIT / "opp").rename(atlas.root / "opp")
    (found,) = atlas.problems(ascend_cann)
    assert found.text.endswith("holds no operators: the kernels package is not installed")


def test_the_list_of_the_installed_mindspore_can_be_read() -> None:
    """From the real wheel: its class and attribute are still called so."""
    from vllm_mindspore.cli.checks.ascend_cann import accepted
    from vllm_mindspore.cli.doctor.surroundings import Surroundings, Wanted, choose_row
    from vllm_mindspore.matrix import toolkits

    probes: Any = None
    around = Surroundings(Wanted(choose_row(None)[0]), probes)
    version = around.version("mindspore")
    assert version is not None
    assert accepted(around) == toolkits()[version]


def test_a_shell_without_set_env_is_told_to_source_it(atlas: Any) -> None:
    home = atlas.environ["ASCEND_HOME_PATH"]
    atlas.environ = {"PATH": "/usr/bin", "LD_LIBRARY_PATH": atlas.environ["LD_LIBRARY_PATH"].split(":")[1]}
    (found,) = atlas.problems(ascend_environment)
    assert (
        found.text
        == "CANN's set_env.sh was not sourced: PATH, PYTHONPATH, ASCEND_OPP_PATH, LD_LIBRARY_PATH name nothing of it"
    )
    assert found.remedy.command == f"source {home.removesuffix('/latest')}/set_env.sh"


def test_variables_of_two_canns_are_named(atlas: Any) -> None:
    other = atlas.write("other/opp/x").parent
    atlas.environ["ASCEND_OPP_PATH"] = str(other)
    (found,) = atlas.problems(ascend_environment)
    assert found.text.startswith(f"ASCEND_OPP_PATH={other} is of another CANN than ")


def test_folders_that_are_not_there_are_named(atlas: Any) -> None:
    atlas.environ["ASCEND_AICPU_PATH"] = "/nowhere/cann"
    atlas.environ["LD_LIBRARY_PATH"] += ":/nowhere/Ascend/lib64"
    found = atlas.look(ascend_environment)
    assert [(one.status, one.text.partition(",")[0]) for one in found] == [
        ("problem", "ASCEND_AICPU_PATH=/nowhere/cann is not there"),
        ("note", "LD_LIBRARY_PATH names /nowhere/Ascend/lib64"),
    ]


def test_a_driver_library_that_is_not_found_is_named(atlas: Any) -> None:
    toolkit, driver = atlas.environ["LD_LIBRARY_PATH"].split(":")
    atlas.environ["LD_LIBRARY_PATH"] = toolkit
    (found,) = atlas.problems(ascend_environment)
    assert found.text == "libascend_hal.so of the driver is in no folder of LD_LIBRARY_PATH"
    atlas.write("etc/ld.so.conf.d/ascend.conf", f"{driver}\n")
    atlas.is_fine(ascend_environment)


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ("0,7", "names 7, and the devices here are 0, 1"),
        ("0,0", "names a device twice"),
        ("all", "is no list of device numbers"),
    ],
)
def test_devices_that_cannot_be_seen_are_named(atlas: Any, told: str, said: str) -> None:
    atlas.environ["ASCEND_RT_VISIBLE_DEVICES"] = told
    (found,) = atlas.problems(ascend_visibility)
    assert said in found.text
    assert found.remedy.command == "unset ASCEND_RT_VISIBLE_DEVICES"


def test_devices_that_can_be_seen_are_fine(atlas: Any) -> None:
    atlas.environ["ASCEND_RT_VISIBLE_DEVICES"] = "1"
    assert atlas.is_fine(ascend_visibility) == "ASCEND_RT_VISIBLE_DEVICES=1 of the devices 0, 1"


def test_an_interface_that_is_not_there_is_named(machine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ascend_network, "interfaces", lambda: ["lo", "enp1s0", "enp2s0"])
    for value in ("enp", "=enp1s0", "^lo", "enp1s0"):
        machine.environ = {"HCCL_SOCKET_IFNAME": value}
        machine.is_fine(ascend_network)
    for value in ("eth0", "=enp", "^lo,enp"):
        machine.environ = {"HCCL_SOCKET_IFNAME": value}
        (found,) = machine.problems(ascend_network)
        assert found.text == f"HCCL_SOCKET_IFNAME={value} is no interface of this machine, which has lo, enp1s0, enp2s0"
        assert found.remedy.command == "export HCCL_SOCKET_IFNAME=enp1s0"


def test_an_address_of_another_machine_is_named(machine: Any) -> None:
    machine.environ = {"HCCL_IF_IP": "127.0.0.1"}
    machine.is_fine(ascend_network)
    machine.environ = {"HCCL_IF_IP": "203.0.113.7"}
    (found,) = machine.problems(ascend_network)
    assert found.text == "HCCL_IF_IP=203.0.113.7 is no address of this machine"
