"""Errors that a user can act on."""

from __future__ import annotations


class UserError(ValueError):
    """Bad input or a missing feature, said in one sentence that names the file, key or value and the remedy.

    It is a `ValueError` so that vLLM's front ends treat it as they treat their own refusals.
    """
