"""The checks of `vllm-mindspore check-env`, a file each. `doctor.finding.Check` says what such a file has."""

from __future__ import annotations

from vllm_mindspore.cli.checks import (
    ascend_cann,
    ascend_devices,
    ascend_driver,
    ascend_environment,
    ascend_network,
    ascend_visibility,
    cores,
    disk,
    drift,
    files,
    graph,
    hub,
    imports,
    interpreter,
    kernels,
    limits,
    locale,
    memory,
    model,
    packages,
    platform_plugin,
    rivals,
    shared_memory,
    variables,
)
from vllm_mindspore.cli.doctor.finding import Check

CHECKS: tuple[Check, ...] = (
    interpreter,
    rivals,
    packages,
    files,
    variables,
    imports,
    drift,
    platform_plugin,
    kernels,
    graph,
    memory,
    cores,
    disk,
    shared_memory,
    limits,
    locale,
    hub,
    ascend_driver,
    ascend_devices,
    ascend_visibility,
    ascend_cann,
    ascend_environment,
    ascend_network,
    model,
)
"""In the order in which a broken environment is best understood: causes before what follows from them."""
