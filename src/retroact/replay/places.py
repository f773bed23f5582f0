"""Where a guided replay is stopped: at the first line of each function of the recorded code, or of those that were named.

This module must not know how anything is stopped.
"""

from __future__ import annotations

import inspect
import itertools
import sys
from collections.abc import Collection, Iterable
from types import CodeType, FrameType, FunctionType, ModuleType
from typing import Any

from retroact.errors import LoadFailed, SourceMissing
from retroact.function.declare import Function
from retroact.function.kind import Kind
from retroact.function.names import plain_name
from retroact.function.registry import Registry
from retroact.replay.shelf import Coded, Shelf

#: The lowest bits of RESUME's argument say whether a frame begins (0) or goes on after a yield or an await.
_GOES_ON = 3


class Places:
    """The code objects that a replay is stopped at."""

    def __init__(
        self,
        shelf: Shelf,
        ran: Iterable[Coded],
        names: Iterable[str] = (),
        *,
        changed: Registry | None = None,
        passed: Collection[Kind] = (Kind.STEP, Kind.INVARIANT),
    ) -> None:
        """`ran`: what is replayed. `names`: functions, declared or plain, at the top level of their module; none means all that
        are run again. `changed`: the code that runs instead; `passed`: kinds of functions that are not stopped in."""
        wanted = tuple(dict.fromkeys(names))
        self.entries: dict[CodeType, str] = {}
        #: All functions that are run again, be they stopped at or not.
        self.functions: dict[CodeType, str] = {}
        #: The functions that could be named, and those that were and are not there.
        self.known: set[str] = set()
        #: Named, but of a kind that is not stopped in.
        self.answered: set[str] = set()
        found: set[str] = set()
        coded = {(coded.function, coded.code): coded for coded in ran}.values()
        codes = [_of_registry(changed)] if changed is not None else [_top_level(shelf, each) for each in coded]
        for name, value in itertools.chain.from_iterable(codes):
            code = _code(value)
            if isinstance(value, Function) and value.kind in passed:
                self.answered |= {name} & set(wanted)
                continue
            if code is None:
                continue
            self.known.add(name)
            found |= {name} & set(wanted)
            if isinstance(value, Function):
                self.functions[code] = name
            if name in wanted if wanted else isinstance(value, Function):
                self.entries[code] = name
        self.missing = [name for name in wanted if name not in found and name not in self.answered]

    def begins(self, frame: FrameType, *, every: bool = False) -> bool:
        """Whether a frame that is entered is one to stop in (`every`: of any function), entered for the first time."""
        code = frame.f_code
        return code in (self.functions if every else self.entries) and code.co_code[frame.f_lasti + 1] & _GOES_ON == 0


def of_project(frame: FrameType) -> bool:
    """Whether a frame runs recorded code, as against the platform's and that of libraries."""
    name = frame.f_globals.get("__name__", "")
    # What libraries compile on the way (an annotation, a named tuple) has the globals of the project, but no lines.
    return isinstance(name, str) and plain_name(name) != name and not frame.f_code.co_filename.startswith("<")


def _top_level(shelf: Shelf, coded: Coded) -> list[tuple[str, Any]]:
    try:
        registry, module = shelf.registry(coded), shelf.module(coded)
    except (SourceMissing, LoadFailed):
        return []
    return _named(registry, [module] if module is not None else [])


def _of_registry(registry: Registry) -> list[tuple[str, Any]]:
    names = dict.fromkeys(function.module for function in registry)
    return _named(registry, [sys.modules[name] for name in names if name in sys.modules])


def _named(registry: Registry, modules: Iterable[ModuleType]) -> list[tuple[str, Any]]:
    declared: list[tuple[str, Any]] = [(function.name, function) for function in registry]
    plain = [(name, v) for module in modules for name, v in vars(module).items() if isinstance(v, FunctionType)]
    return declared + [(name, v) for name, v in plain if plain_name(v.__module__) != v.__module__]


def _code(value: Any) -> CodeType | None:
    body = inspect.unwrap(value.body if isinstance(value, Function) else value)
    return getattr(body, "__code__", None)
