"""Control groups: the limits that a container, a batch system or systemd sets for this process, which hold beside the machine's.

A limit of any group around a process counts, and inside of a container the outermost that can be seen may be its own. Mounted where systemd,
Docker, Podman and Kubernetes mount them: version 2 at the top or, beside version 1, in `unified`; version 1 in a folder for each controller.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

_MOUNTED = Path("/sys/fs/cgroup")
_OWN = Path("/proc/self/cgroup")


def folders(controller: str) -> Iterator[Path]:
    """Where the files of the group that this process is in may lie, and of all that are around it."""
    groups = {"": "/", controller: "/"}  # where nothing is told
    for line in read(_OWN).splitlines():
        _, controllers, group = line.split(":", 2)
        groups.update((name, group) for name in controllers.split(",") if name in groups)
    for mounted, name in ((_MOUNTED, ""), (_MOUNTED / "unified", ""), (_MOUNTED / controller, controller)):
        own = PurePosixPath(groups[name].lstrip("/"))
        yield from (mounted / group for group in (own, *own.parents))


def read(file: Path) -> str:
    """What a file holds; nothing, if it cannot be read."""
    try:
        return file.read_text().strip()
    except OSError:
        return ""
