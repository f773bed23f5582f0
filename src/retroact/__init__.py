"""Functions that are transactions: run them exactly once, go back to any of them, change the code and run the past again.

The public API, nothing else. Each name is loaded when it is first asked for, so that a command that only reads does not pay for what
runs functions. This module must not know how anything is done.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from retroact.app import App, Handle
    from retroact.errors import RetroactError, RunCancelled, RunFailed
    from retroact.function.context import Connection, gather, gather_async, key, now, rng, sleep, uuid
    from retroact.function.declare import Function, invariant, step, transaction, workflow
    from retroact.function.lint.warn import DeterminismWarning
    from retroact.function.registry import Registry
    from retroact.portable import ExportOptions, Past, open_portable
    from retroact.trace.retention import Retention

__all__ = [
    "App",
    "Connection",
    "DeterminismWarning",
    "ExportOptions",
    "Function",
    "Handle",
    "Past",
    "Registry",
    "Retention",
    "RetroactError",
    "RunCancelled",
    "RunFailed",
    "gather",
    "gather_async",
    "invariant",
    "key",
    "now",
    "open_portable",
    "rng",
    "sleep",
    "step",
    "transaction",
    "uuid",
    "workflow",
]

# The package retroact.workflow and the decorator share a name. Importing a package makes it an attribute of its parent, once: so it is
# imported here, where the attribute can be taken away again.
importlib.import_module("retroact.workflow")
globals().pop("workflow", None)

_PLACES = {
    "retroact.app": ("App", "Handle"),
    "retroact.errors": ("RetroactError", "RunCancelled", "RunFailed"),
    "retroact.function.context": ("Connection", "gather", "gather_async", "key", "now", "rng", "sleep", "uuid"),
    "retroact.function.declare": ("Function", "invariant", "step", "transaction", "workflow"),
    "retroact.function.lint.warn": ("DeterminismWarning",),
    "retroact.function.registry": ("Registry",),
    "retroact.portable": ("ExportOptions", "Past", "open_portable"),
    "retroact.trace.retention": ("Retention",),
}
_PLACE_OF = {name: place for place, names in _PLACES.items() for name in names}


def __getattr__(name: str) -> Any:
    place = _PLACE_OF.get(name)
    if place is None:
        message = f"module 'retroact' has no attribute {name!r}"
        raise AttributeError(message)
    value = getattr(importlib.import_module(place), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__doc__"]
