"""Which registered functions a function's code mentions, directly or through its helpers.

A fingerprint stops at registered functions, since each has its own; whoever asks whether a function would still do the same must ask it
of these too.

This module must not know why it is asked.
"""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType

from retroact.errors import SourceMissing
from retroact.function.fingerprint import definitions, unwrapped

#: How the graph of definitions writes a name that stands for a registered function (see `fingerprint.py`).
_MARK = " function "


def mentions(callable: Callable[..., object]) -> frozenset[str] | None:  # noqa: A002 (what it takes is a callable, and nothing else)
    """The names of the registered functions in a function's code; None when its source is not at hand."""
    function = unwrapped(callable)
    if not isinstance(function, FunctionType):
        return None
    try:
        return frozenset(line.rpartition(_MARK)[2] for line in definitions(function) if _MARK in line)
    except (SourceMissing, OSError, SyntaxError, ValueError):
        return None
