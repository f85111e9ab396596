"""Whether the CPU kernels are built, load, and compute a right answer."""

from __future__ import annotations

from vllm_mindspore.cli.doctor.probes import Tell, failure


def look(tell: Tell) -> None:
    """Tell of the `kernels`: instruction sets and threads."""
    try:
        from vllm_mindspore.kernels.cpu import library

        isa = library.self_check()
        tell("kernels", {"isa": isa, "isas": library.available_isas(), "threads": library.num_threads()})
    except BaseException as error:
        tell("kernels", failure(error))
