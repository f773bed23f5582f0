"""The recorded code, loaded: for each record, the function that ran then.

This module must not know how a function is run.
"""

from __future__ import annotations

import contextlib
from types import ModuleType
from typing import Any, Protocol

from retroact.errors import SourceMissing, UnknownFunction
from retroact.function.code import Code, load, modules_of, unload
from retroact.function.declare import Function
from retroact.function.given import given
from retroact.function.registry import Registry


class Coded(Protocol):
    """What names a function and its code: a record or a run."""

    @property
    def function(self) -> str: ...
    @property
    def code(self) -> str | None: ...


class CodeStore(Protocol):
    """Where recorded code is kept."""

    def code(self, digest: str) -> Code | None: ...


class Shelf:
    """Loads each version of the code once, side by side. Functions without recorded source are taken from `fallback`."""

    def __init__(self, store: CodeStore, fallback: Registry | None = None) -> None:
        self._store = store
        self._fallback = fallback
        self._loaded: dict[str, tuple[ModuleType, Registry]] = {}

    def function(self, record: Coded) -> Function[..., Any]:
        """The function of a record, as it was. Raises SourceMissing, LoadFailed."""
        registry = self.registry(record)
        try:
            return registry.get(record.function)
        except UnknownFunction:
            raise SourceMissing(function=record.function, problem="its module does not define it at the top level") from None

    def registry(self, record: Coded) -> Registry:
        """The functions of the code that a record was made by. Raises SourceMissing, LoadFailed."""
        if record.code is None:
            if self._fallback is not None:
                return self._fallback
            raise SourceMissing(function=record.function, problem="it was not defined in a file")
        return self._load(record.code, record.function)[1]

    def module(self, record: Coded) -> ModuleType | None:
        """The main module of the code that a record was made by."""
        return self._load(record.code, record.function)[0] if record.code else None

    def close(self) -> None:
        """Let the loaded versions go."""
        for module, _ in self._loaded.values():
            with contextlib.suppress(KeyError):
                unload(module)
        self._loaded.clear()

    def _load(self, digest: str, function: str) -> tuple[ModuleType, Registry]:
        if digest not in self._loaded:
            code = self._store.code(digest)
            if code is None:
                raise SourceMissing(function=function, problem=f"code {digest} is not in the trace")
            module = load(code)
            given.adopt(modules_of(module, code))
            self._loaded[digest] = (module, Registry.of(module))
        return self._loaded[digest]
