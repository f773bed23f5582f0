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
from retroact.function.names import plain_name
from retroact.trace.codec import encode_json
from retroact.trace.record import Failure, RunId


def describe(error: BaseException, *, statement: int | None = None, sqlstate: str | None = None) -> Failure:
    """The failure that stands for `error`."""
    kind = type(error)
    arguments: tuple[object, ...] | None = error.args
    try:
        encode_json(arguments)
    except (TypeError, ValueError, OverflowError, RecursionError):
        arguments = None
    return Failure(
        error=f"{plain_name(kind.__module__)}.{kind.__qualname__}",
        message=_message(error),
        arguments=arguments,
        sqlstate=sqlstate,
        statement=statement,
    )


def revive(failure: Failure, run: RunId, modules: Mapping[str, ModuleType]) -> Exception:
    """The exception that `failure` stands for: its own class when that is at hand in `modules` (by trace name) or among the
    loaded modules, else RunFailed with the same message.

    The class counts for more than the attributes: whoever catches it when it is first raised must catch it again from the record."""
    kind = _find(failure.error, modules)
    error = None if kind is None else _rebuilt(kind, failure) or _filled(kind, failure)
    return error or RunFailed(run=run, error=failure.error, message=failure.message)


def _rebuilt(kind: type[Exception], failure: Failure) -> Exception | None:
    """Made from its arguments as it was the first time, if that gives the same message."""
    if failure.arguments is None:
        return None
    try:
        error = kind(*failure.arguments)
        return error if _message(error) == failure.message else None
    except Exception:  # noqa: BLE001 - a class may want other arguments than those that it keeps
        return None


def _filled(kind: type[Exception], failure: Failure) -> Exception | None:
    """Made without its own constructor, with the message for an argument."""
    try:
        error = kind.__new__(kind)
        error.args = (failure.message,)
    except Exception:  # noqa: BLE001 - a class that cannot be made so (ExceptionGroup) is reported, not raised
        return None
    return error


def _message(error: BaseException) -> str:
    """What it says, as text that can be stored."""
    try:
        text = str(error)
    except Exception as problem:  # noqa: BLE001 - a class whose own __str__ fails is still a failure to record
        text = f"(its message cannot be shown: {type(problem).__name__})"
    return text.encode("utf-8", "backslashreplace").decode()


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
