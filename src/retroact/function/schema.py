"""Type hints as the schema: how the arguments and the result of a function are checked and encoded.

Arguments are recorded as one JSON object by parameter name. A body is given what the record says, decoded by the type hints, never
the caller's own objects: so the first run and every later one start from the same values.

This module must not know what kind of function it serves, nor who records what it encodes.
"""

from __future__ import annotations

import copy
import inspect
import math
import types
import typing
from collections.abc import Callable
from typing import Any, cast

import msgspec

from retroact.errors import BadArguments, BadDeclaration, UnencodableResult

_encode = msgspec.json.Encoder().encode
_values = msgspec.structs.astuple
#: Types whose JSON form decodes to themselves, so that a result of just this type needs no second look.
_PLAIN = (int, str, bool, type(None))

#: Characters of a value that an error message shows.
_SHOWN = 80


class Schema:
    """The signature of one function, compiled. `skip` leading parameters (the connection) are the platform's to supply."""

    __slots__ = ("_arguments", "_decode_result", "_names", "_positional", "_required", "_result", "function", "signature")

    def __init__(self, function: str, parameters: list[inspect.Parameter], hints: dict[str, Any], signature: str) -> None:
        self.function = function
        self.signature = signature
        self._names = tuple(p.name for p in parameters)
        self._positional = tuple(p.name for p in parameters if p.kind is not inspect.Parameter.KEYWORD_ONLY)
        self._required = frozenset(p.name for p in parameters if p.default is inspect.Parameter.empty)
        fields = [_field(p, hints) for p in parameters]
        struct = msgspec.defstruct(f"{function}_arguments", fields, forbid_unknown_fields=True, kw_only=True)
        self._arguments = msgspec.json.Decoder(struct)
        self._result = hints.get("return", Any)
        self._decode_result = msgspec.json.Decoder(self._result).decode

    @classmethod
    def of(cls, body: Callable[..., Any], function: str, *, skip: int = 0) -> Schema:
        """Compile the signature of `body`. Raises BadDeclaration when it cannot be a schema."""
        signature = inspect.signature(body)
        parameters = list(signature.parameters.values())
        if len(parameters) < skip:
            raise BadDeclaration(function=function, problem="its first parameter must be the connection, which the platform supplies")
        parameters = parameters[skip:]
        for parameter in parameters:
            if parameter.kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD):
                raise BadDeclaration(function=function, problem=f"parameter *{parameter.name} cannot be recorded by name; name each one")
        try:
            hints = _hints(body, {p.name for p in parameters})
        except (NameError, AttributeError, TypeError, SyntaxError) as error:
            raise BadDeclaration(function=function, problem=f"its type hints cannot be resolved: {error}") from None
        shown = ", ".join(str(p.replace(annotation=hints.get(p.name, p.empty))) for p in parameters)
        try:
            return cls(function, parameters, hints, f"{function}({shown})")
        except (TypeError, ValueError, RuntimeError) as error:
            raise BadDeclaration(function=function, problem=f"its type hints cannot be encoded: {error}") from None

    def encode_arguments(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bytes:
        """Bind by position and by name and encode as one JSON object. Raises BadArguments."""
        named = dict(zip(self._positional, args, strict=False))
        if kwargs or len(args) != len(self._names):
            if len(args) > len(self._positional) or not named.keys().isdisjoint(kwargs):
                raise self._bad("too many arguments, or one given twice")
            named.update(kwargs)
            if not self._required <= named.keys():
                missing = ", ".join(n for n in self._names if n in self._required and n not in named)
                raise self._bad(f"missing {missing}")
        try:
            return _encoded(named)
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise self._bad(f"an argument cannot be recorded: {error}") from None

    def decode_arguments(self, arguments: bytes | str) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The values a body is to be called with: those by position, those by name. Raises BadArguments."""
        try:
            struct = self._arguments.decode(arguments)
        except (msgspec.ValidationError, msgspec.DecodeError) as error:
            raise self._bad(str(error)) from None
        if len(self._positional) == len(self._names):
            return _values(struct), {}
        by_name = {name: getattr(struct, name) for name in self._names[len(self._positional) :]}
        return tuple(getattr(struct, name) for name in self._positional), by_name

    def encode_result(self, value: Any) -> bytes:
        """Encode a result as JSON after checking it against the return hint. Raises UnencodableResult."""
        try:
            encoded = _encoded(value)
            if type(value) not in _PLAIN or self._result not in (type(value), Any):
                self._decode_result(encoded)
        except (msgspec.MsgspecError, TypeError, ValueError, OverflowError, RecursionError) as error:
            raise UnencodableResult(function=self.function, value=_short(value), expected=_name(self._result), problem=error) from None
        return encoded

    def decode_result(self, encoded: bytes | str) -> Any:
        """The value that a recorded result stands for."""
        return self._decode_result(encoded)

    def _bad(self, problem: str) -> BadArguments:
        return BadArguments(function=self.function, problem=problem, signature=self.signature)


def _hints(body: Callable[..., Any], names: set[str]) -> dict[str, Any]:
    """The hints of those parameters and of the result. That of the connection may name what is imported for typing only."""
    plain = inspect.unwrap(body)
    wanted = {name: hint for name, hint in plain.__annotations__.items() if name in names or name == "return"}
    return typing.get_type_hints(types.SimpleNamespace(__annotations__=wanted), plain.__globals__, include_extras=True)


def _encoded(value: Any) -> bytes:
    """JSON. Raises ValueError for numbers that it lacks, which would silently become null."""
    encoded = _encode(value)
    if b"null" in encoded and not _finite(msgspec.to_builtins(value)):
        raise ValueError("JSON has no infinity and no NaN")
    return encoded


def _finite(value: Any) -> bool:
    match value:
        case float():
            return math.isfinite(value)
        case dict():
            return all(map(_finite, cast("dict[Any, Any]", value).values()))
        case list():
            return all(map(_finite, cast("list[Any]", value)))
        case _:
            return True


def _field(parameter: inspect.Parameter, hints: dict[str, Any]) -> tuple[str, Any] | tuple[str, Any, Any]:
    hint = hints.get(parameter.name, Any)
    if parameter.default is inspect.Parameter.empty:
        return (parameter.name, hint)
    default = parameter.default
    if default is None or isinstance(default, str | int | float | bytes):
        return (parameter.name, hint, default)
    return (parameter.name, hint, msgspec.field(default_factory=lambda: copy.deepcopy(default)))


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."


def _name(hint: object) -> str:
    return getattr(hint, "__name__", str(hint))
