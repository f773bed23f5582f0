"""Exceptions as values, and back: a recorded failure is raised again as the class that it was.

A class is looked up only among modules that are already loaded, never imported, and only if it is an exception: a trace can name
what to raise, not what to run.

This module must not know who failed.
"""

from __future__ import annotations

import builtins
import sys
from collections.abc import Mapping
from types import ModuleType

from retroact.errors import RunFailed
from retroact.function.code import plain_name
from retroact.trace.codec import encode_json
from retroact.trace.record import Failure, RunId


def describe(error: BaseException, *, statement: int | None = None, sqlstate: str | None = None) -> Failure:
    """The failure that stands for `error`."""
    kind = type(error)
    arguments: tuple[object, ...] | None = error.args
    try:
        encode_json(arguments)
    except (TypeError, ValueError, OverflowError):
        arguments = None
    return Failure(
        error=f"{plain_name(kind.__module__)}.{kind.__qualname__}",
        message=str(error),
        arguments=arguments,
        sqlstate=sqlstate,
        statement=statement,
    )


def revive(failure: Failure, run: RunId, modules: Mapping[str, ModuleType]) -> Exception:
    """The exception that `failure` stands for: its own class when that is at hand in `modules` (by trace name) or among the
    loaded modules, else RunFailed with the same message."""
    kind = _find(failure.error, modules)
    if kind is not None and failure.arguments is not None:
        try:
            error = kind(*failure.arguments)
        except Exception:  # noqa: BLE001 - a class that cannot be rebuilt from its arguments is reported, not raised
            return RunFailed(run=run, error=failure.error, message=failure.message)
        if str(error) == failure.message:
            return error
    if kind is not None:
        error = kind.__new__(kind)
        error.args = (failure.message,)
        return error
    return RunFailed(run=run, error=failure.error, message=failure.message)


def _find(name: str, modules: Mapping[str, ModuleType]) -> type[Exception] | None:
    parts = name.split(".")
    for split in range(len(parts) - 1, 0, -1):
        module_name = ".".join(parts[:split])
        module = builtins if module_name == "builtins" else modules.get(module_name) or sys.modules.get(module_name)
        if module is None:
            continue
        found: object = module
        for part in parts[split:]:
            found = getattr(found, part, None)
        return found if isinstance(found, type) and issubclass(found, Exception) else None
    return None
