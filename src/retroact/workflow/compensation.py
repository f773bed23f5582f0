"""Undo what a failed workflow had committed, last call first, each compensation a recorded call like any other.

This module must not know how calls are carried out: it asks the scope, live or in the past.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from retroact.engine.contract import Invocation
from retroact.function.declare import Function
from retroact.function.registry import Registry


class Scope(Protocol):
    """What a compensation needs of a workflow's scope."""

    @property
    def fault(self) -> Exception | None: ...
    @property
    def committed(self) -> Mapping[int, Invocation]: ...
    def invocation(self, callee: Function[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Invocation: ...
    def perform(self, invocation: Invocation) -> Any: ...


def compensate(scope: Scope, registry: Registry) -> str | None:
    """Call what compensates each committed call, and return what went wrong with it, if anything did.

    A compensation that fails is reported and does not keep the others from running. Raises the scope's fault.
    """
    problems: list[str] = []
    for step in sorted(scope.committed, reverse=True):
        done = scope.committed[step]
        compensation = registry.compensation_of(done.function)
        if compensation is None:
            continue
        try:
            args, kwargs = done.function.schema.decode_arguments(done.arguments)
            scope.perform(scope.invocation(compensation, args, kwargs))
        except Exception as error:  # the failure that is being compensated is the one to report
            if scope.fault is not None:
                raise scope.fault from error
            problems.append(f"compensation {compensation.name} of step {step} failed: {error}")
    return "; ".join(problems) or None
