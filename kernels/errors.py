"""What goes wrong with kernels."""

from __future__ import annotations


class KernelError(Exception):
    """One sentence: the kernels are not built, or this machine cannot run what is asked."""


class NotFinite(ValueError):
    """A weight holds an infinity or a NaN, or gets one by conversion."""


class NotCaptured(Exception):
    """A graph does not consist of our operators alone."""
