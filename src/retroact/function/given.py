"""What the standard modules give to a body: the recorded time, and the invocation's own chance.

`time.time()`, `datetime.now()`, `random.random()`, `uuid.uuid4()`, `secrets.token_hex()` and their like answer from the scope of the
moment while the body of a transaction, an invariant or a workflow runs in this context, and as ever everywhere else: in steps, in other
threads, outside of functions. So code that was written for no platform can be run again, and libraries that bodies call can too.

Three ways lead there, because a name may have been copied before we came:
  * a substitute in the module that has the original (`time.time`, `os.urandom`, which uuid4 and secrets draw from);
  * the same substitute wherever a project's module holds the original under a name of its own (`from time import time`): `adopt`;
  * in the classes `datetime` and `date` themselves, which are C types: their methods are replaced in the class's own namespace, so that
    there is one class as before, and neither isinstance nor type hints nor encoders can tell a difference.

All of it is the process's own, like the guard, and can be taken back (`restore`). This module must not know who implements a scope.
"""

from __future__ import annotations

import datetime
import gc
import os
import random
import sys
import threading
import time
import uuid
import weakref
from collections.abc import Callable, Iterable, Mapping
from functools import wraps
from types import BuiltinFunctionType, ModuleType
from typing import Any

from retroact.function.code import Code, modules_of
from retroact.function.context import Scope, current_scope
from retroact.function.kind import Kind

_ClassMethod = Callable[..., Any]
_MULTICAST = 1 << 40
_HUNDREDS_OF_NS = 10
_GREGORIAN = 0x01B21DD213814000


class Given:
    """The substitutes of a process: put in place once, found again by the original that each stands for."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._installed = False
        self._undo: list[Callable[[], None]] = []
        #: By the identity of the original: the original, which keeps the identity its own, and its substitute.
        self._substitutes: dict[int, tuple[Any, Any]] = {}
        #: What stood under which name of a module, for as long as the module is there.
        self._adopted: weakref.WeakKeyDictionary[ModuleType, dict[str, Any]] = weakref.WeakKeyDictionary()

    def install(self) -> None:
        """Put the substitutes in place, once."""
        if self._installed:
            return
        with self._lock:
            if not self._installed:
                for module, name, make in _plan():
                    self._replace(module, name, make)
                self._replace_seed()
                # Other Pythons keep the namespaces of such classes elsewhere: there, `datetime` has the time of the machine.
                for kind, name, make in _CLASS_METHODS if sys.implementation.name == "cpython" else ():
                    self._replace_class_method(kind, name, make)
                self._installed = True

    def adopt(self, modules: Iterable[ModuleType]) -> None:
        """Put the substitutes wherever these modules hold an original under a name at their top."""
        self.install()
        for module in modules:
            names = vars(module)
            for name, value in list(names.items()):
                substitute = self._substitute_of(value)
                if substitute is not None:
                    names[name] = substitute
                    self._adopted.setdefault(module, {})[name] = value

    def restore(self) -> None:
        """Take everything back."""
        with self._lock:
            for module, names in self._adopted.items():
                vars(module).update(names)
            self._adopted.clear()
            while self._undo:
                self._undo.pop()()
            self._substitutes.clear()
            self._installed = False

    def _substitute_of(self, value: Any) -> Any:
        found = self._substitutes.get(id(value))
        if found is not None and found[0] is value:
            return found[1]
        # `now = datetime.now` holds what was bound, which is made anew each time that it is asked for.
        if isinstance(value, BuiltinFunctionType) and (value.__self__, value.__name__) in _BOUND:
            return getattr(value.__self__, value.__name__)
        return None

    def _replace(self, module: Any, name: str, make: Callable[[Any], Any]) -> None:
        original = getattr(module, name)
        known = self._substitutes.get(id(original))
        substitute = known[1] if known else make(original)
        self._substitutes[id(original)] = (original, substitute)
        setattr(module, name, substitute)
        self._undo.append(lambda: setattr(module, name, original))

    def _replace_seed(self) -> None:
        """A generator that a body makes without a seed starts from the invocation's chance."""
        original = random.Random.seed

        @wraps(original)
        def seed(self: random.Random, a: Any = None, version: int = 2) -> None:
            scope = _giving() if a is None else None
            original(self, scope.random().getrandbits(256) if scope is not None else a, version)

        setattr(random.Random, "seed", seed)  # noqa: B010 - an assignment would tell the type checker that the class changes
        self._undo.append(lambda: setattr(random.Random, "seed", original))

    def _replace_class_method(self, kind: type, name: str, make: Callable[[Any], _ClassMethod]) -> None:
        """Replace a class method of a C type, where Python itself looks it up."""
        own = vars(kind)[name]
        bound = getattr(kind, name)
        _set_in_class(kind, name, classmethod(wraps(bound)(make(own))))
        self._undo.append(lambda: _set_in_class(kind, name, own))


def _giving() -> Scope | None:
    """The scope of the moment, if it gives time and chance."""
    scope = current_scope()
    return None if scope is None or scope.function.kind is Kind.STEP else scope


def _set_in_class(kind: type, name: str, value: Any) -> None:
    import ctypes  # noqa: PLC0415 - only who runs functions pays for it

    # A type's __dict__ is a read-only view; what it views is the only thing that it refers to.
    (names,) = gc.get_referents(vars(kind))
    names[name] = value
    ctypes.pythonapi.PyType_Modified(ctypes.py_object(kind))


# --- the substitutes --------------------------------------------------------------------------------------------------------


def _moment(from_us: Callable[[int], Any]) -> Callable[[Any], Any]:
    """A function without arguments that reads the clock."""

    def make(original: Callable[[], Any]) -> Any:
        @wraps(original)
        def substitute() -> Any:
            scope = current_scope()
            if scope is None or scope.function.kind is Kind.STEP:
                return original()
            return from_us(scope.now_us())

        return substitute

    return make


def _calendar(original: Callable[..., Any]) -> Any:
    """A function whose one argument is the time, by default the clock's."""

    @wraps(original)
    def substitute(seconds: float | None = None, /) -> Any:
        if seconds is None and (scope := _giving()) is not None:
            seconds = scope.now_us() / 1e6
        return original(seconds)

    return substitute


def _shown_time(position: int) -> Callable[[Any], Any]:
    """A function that shows a struct_time, by default the clock's in local time."""

    def make(original: Callable[..., Any]) -> Any:
        @wraps(original)
        def substitute(*args: Any) -> Any:
            if len(args) == position and _giving() is not None:
                args = (*args, time.localtime())
            return original(*args)

        return substitute

    return make


def _chance(name: str) -> Callable[[Any], Any]:
    """A function of the module `random`, which is a method of a generator that nobody recorded."""

    def make(original: Callable[..., Any]) -> Any:
        @wraps(original)
        def substitute(*args: Any, **kwargs: Any) -> Any:
            scope = current_scope()
            if scope is None or scope.function.kind is Kind.STEP:
                return original(*args, **kwargs)
            return getattr(scope.random(), name)(*args, **kwargs)

        return substitute

    return make


def _random_number(original: Callable[[], float]) -> Any:
    """`random.random`, which is called often."""

    @wraps(original)
    def substitute() -> float:
        scope = current_scope()
        if scope is None or scope.function.kind is Kind.STEP:
            return original()
        return scope.random().random()

    return substitute


def _random_bytes(original: Callable[[int], bytes]) -> Any:
    """`os.urandom`: uuid4 and everything in `secrets` are made from it."""

    @wraps(original)
    def substitute(size: int, /) -> bytes:
        scope = current_scope()
        if scope is None or scope.function.kind is Kind.STEP:
            return original(size)
        return scope.random().randbytes(size)

    return substitute


def _time_based_id(original: Callable[..., uuid.UUID]) -> Any:
    """`uuid1` has the machine's address and a counter of the process in it: both are drawn instead."""

    @wraps(original)
    def substitute(node: int | None = None, clock_seq: int | None = None) -> uuid.UUID:
        scope = _giving()
        if scope is None:
            return original(node, clock_seq)
        draw = scope.random().getrandbits
        stamp = scope.now_us() * _HUNDREDS_OF_NS + _GREGORIAN
        sequence = draw(14) if clock_seq is None else clock_seq
        address = draw(48) | _MULTICAST if node is None else node
        fields = (stamp & 0xFFFFFFFF, stamp >> 32 & 0xFFFF, stamp >> 48 & 0x0FFF, sequence >> 8 & 0x3F, sequence & 0xFF, address)
        return uuid.UUID(fields=fields, version=1)

    return substitute


def _now(own: Any) -> _ClassMethod:
    kind, usual = datetime.datetime, own.__get__(None, datetime.datetime)

    def substitute(cls: Any, tz: datetime.tzinfo | None = None) -> Any:
        scope = current_scope()
        if scope is None or scope.function.kind is Kind.STEP:
            return usual(tz) if cls is kind else own.__get__(None, cls)(tz)
        return cls.fromtimestamp(scope.now_us() / 1e6, tz)

    return substitute


def _utcnow(own: Any) -> _ClassMethod:
    def substitute(cls: Any) -> Any:
        scope = _giving()
        if scope is None:
            return own.__get__(None, cls)()
        return cls.fromtimestamp(scope.now_us() / 1e6, datetime.UTC).replace(tzinfo=None)

    return substitute


def _today(own: Any) -> _ClassMethod:
    def substitute(cls: Any) -> Any:
        scope = _giving()
        return own.__get__(None, cls)() if scope is None else cls.fromtimestamp(scope.now_us() / 1e6)

    return substitute


_CLASS_METHODS = ((datetime.datetime, "now", _now), (datetime.datetime, "utcnow", _utcnow), (datetime.date, "today", _today))


_BOUND = {(datetime.datetime, "now"), (datetime.datetime, "utcnow"), (datetime.datetime, "today"), (datetime.date, "today")}


def _plan() -> list[tuple[Any, str, Callable[[Any], Any]]]:
    """Which name of which module is replaced, and how its substitute is made."""
    owner: Any = random  # whose private generator its functions are methods of
    methods = [name for name in owner.__all__ if getattr(getattr(owner, name), "__self__", None) is owner._inst]  # noqa: SLF001
    return [
        (time, "time", _moment(lambda now_us: now_us / 1e6)),
        (time, "time_ns", _moment(lambda now_us: now_us * 1000)),
        (time, "gmtime", _calendar),
        (time, "localtime", _calendar),
        (time, "ctime", _calendar),
        (time, "strftime", _shown_time(1)),
        (time, "asctime", _shown_time(0)),
        *((random, name, _random_number if name == "random" else _chance(name)) for name in methods),
        (os, "urandom", _random_bytes),
        (random, "_urandom", _random_bytes),
        (uuid, "uuid1", _time_based_id),
    ]


#: A process has one `time.time`, so it has one of these.
given = Given()


def supply(modules: Iterable[str], codes: Mapping[str, Code]) -> None:
    """Give the projects of these modules the recorded time and chance, also under names of their own. `codes` are theirs, as far as
    their source is at hand."""
    for name in set(modules):
        module = sys.modules.get(name)
        if module is not None:
            given.adopt(modules_of(module, codes[name]) if name in codes else [module])
