"""Which function a name stands for: a value, owned by an App. Two registries, with two versions of the code, may stand side by side.

This module must not know how functions are run. It holds no registry of its own: nothing is global.
"""

from __future__ import annotations

import types
from collections.abc import Iterable, Iterator
from typing import Any

from retroact.errors import BadDeclaration, DuplicateFunction, UnknownFunction
from retroact.function.declare import Function
from retroact.function.kind import Kind

AnyFunction = Function[..., Any]


class Registry:
    """Functions by name, with what compensates and what inquires each. A value; it never changes after it is made."""

    def __init__(self, functions: Iterable[AnyFunction]) -> None:
        """Raises DuplicateFunction when two different functions have one name, BadDeclaration when two undo, or inquire, the same."""
        self._functions: dict[str, AnyFunction] = {}
        for function in functions:
            present = self._functions.setdefault(function.name, function)
            if present is not function:
                raise DuplicateFunction(name=function.name, first=_where(present), second=_where(function), kind=function.kind.value)
        everyone = self._functions.values()
        self._compensations = _joined("compensations", ((f.undoes, f) for f in everyone))
        self._inquiries = _joined("inquiries", ((f.inquires, f) for f in everyone))

    @classmethod
    def of(cls, *sources: types.ModuleType | AnyFunction | Iterable[AnyFunction]) -> Registry:
        """All functions of modules, and the functions given. Raises BadDeclaration for anything else."""
        found: dict[int, AnyFunction] = {}
        for source in sources:
            for function in _functions_of(source):
                found[id(function)] = function
        return cls(found.values())

    def get(self, name: str) -> AnyFunction:
        """The function of that name. Raises UnknownFunction."""
        function = self._functions.get(name)
        if function is None:
            raise UnknownFunction(name=name, known=", ".join(sorted(self._functions)) or "none")
        return function

    def must_have(self, function: AnyFunction) -> None:
        """Raises UnknownFunction when it is not this very function that is registered under its name."""
        if self.get(function.name) is not function:
            raise UnknownFunction(name=f"{function.name} (another version)", known=", ".join(sorted(self._functions)))

    def __contains__(self, name: str) -> bool:
        return name in self._functions

    def __iter__(self) -> Iterator[AnyFunction]:
        return iter(self._functions.values())

    def compensation_of(self, function: AnyFunction) -> AnyFunction | None:
        """What undoes a committed call of `function`, if anything does."""
        return self._compensations.get(function.name)

    def inquiry_of(self, function: AnyFunction) -> AnyFunction | None:
        """What finds out the outcome of an unanswered call of `function`, if anything does."""
        return self._inquiries.get(function.name)

    @property
    def invariants(self) -> tuple[AnyFunction, ...]:
        """The functions that must hold in every state."""
        return tuple(f for f in self if f.kind is Kind.INVARIANT)


def _functions_of(source: Any) -> Iterator[AnyFunction]:
    if isinstance(source, Function):
        yield source
    elif isinstance(source, types.ModuleType):
        for value in vars(source).values():
            if isinstance(value, Function):
                yield value
    elif isinstance(source, Iterable) and not isinstance(source, str | bytes):
        for item in source:  # pyright: ignore[reportUnknownVariableType]
            yield from _functions_of(item)
    else:
        raise BadDeclaration(function=repr(source), problem="functions are given as a module, as Function values or as a list of them")


def _joined(what: str, links: Iterable[tuple[AnyFunction | None, AnyFunction]]) -> dict[str, AnyFunction]:
    found: dict[str, AnyFunction] = {}
    for target, function in links:
        if target is not None and found.setdefault(target.name, function) is not function:
            both = f"{found[target.name].name} and {function.name}"
            raise BadDeclaration(function=target.name, problem=f"it has two {what}: {both}; keep one")
    return found


def _where(function: AnyFunction) -> str:
    code = getattr(function.body, "__code__", None)
    return f"{function.module}, line {code.co_firstlineno}" if code else function.module
