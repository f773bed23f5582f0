"""Reads one body: which rules it runs into, and which definitions of the project it leans on.

This module must not know files, suppressions nor severities.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import cast

import msgspec

from retroact.function.lint.known import METHODS, rule_for
from retroact.function.lint.names import FunctionNode, Module, Place, base_name, bound_in, dotted_name, mutations, nodes_of
from retroact.function.lint.order import is_set_literal, ordered_uses
from retroact.function.lint.sql import sql_findings


class Hit(msgspec.Struct, frozen=True, eq=False):
    """A rule, where it applies, and what was found there."""

    node: ast.AST
    rule: str
    name: str


class Read(msgspec.Struct, frozen=True, eq=False):
    """What was read of one definition."""

    hits: tuple[Hit, ...]
    places: tuple[Place, ...]


def read(place: Place, connection: str | None) -> Read:
    """Read a function, or all the methods of a class. `connection` is the name of the parameter that the platform supplies."""
    if isinstance(place.node, FunctionNode):
        reader = _Reader(place.module, place.node, connection)
        hits = tuple(reader.hits())
        return Read(hits, tuple(reader.places))
    parts = [read(Place(place.module, node), None) for node in place.node.body if isinstance(node, FunctionNode)]
    return Read(tuple(hit for part in parts for hit in part.hits), tuple(each for part in parts for each in part.places))


class _Reader:
    def __init__(self, module: Module, node: FunctionNode, connection: str | None) -> None:
        self._module = module
        self._node = node
        self._connection = connection
        self._imports = dict(module.imported(iter(nodes_of(node))))
        self._bound = bound_in(node) - self._imports.keys()
        self._nodes = list(_running(node))
        self.places: list[Place] = []

    def hits(self) -> Iterator[Hit]:
        """Everything that rules say of this body."""
        yield from self._names()
        yield from self._state()
        yield from self._sets()
        yield from self._escapes()
        for where, rule, name in sql_findings(self._node, self._constants()):
            yield Hit(where, rule, name)

    def _names(self) -> Iterator[Hit]:
        called = {id(node.func): node for node in self._nodes if isinstance(node, ast.Call)}
        inner: set[int] = set()
        for node in self._nodes:
            if not isinstance(node, ast.Attribute | ast.Name) or id(node) in inner:
                continue
            below: ast.expr = node
            while isinstance(below, ast.Attribute):
                below = below.value
                inner.add(id(below))
            call = called.get(id(node))
            path = dotted_name(node)
            if path is not None and path[0] not in self._bound and isinstance(node.ctx, ast.Load):
                yield from self._named(node, path, call)
            elif call is not None and isinstance(node, ast.Attribute):
                yield from self._method(node, call)

    def _named(self, node: ast.expr, path: tuple[str, ...], call: ast.Call | None) -> Iterator[Hit]:
        found = self._module.resolve(path, self._imports)
        if isinstance(found, Place):
            self.places.append(found)
        elif found is not None:
            shown = f"{'.'.join(path)}{'()' if call is not None else ''}"
            rule = self._rule(found, call)
            if rule is not None:
                yield Hit(node, rule, shown)
            elif call is not None and isinstance(node, ast.Attribute):
                yield from self._method(node, call)

    @staticmethod
    def _rule(name: str, call: ast.Call | None) -> str | None:
        given = [*call.args, *call.keywords] if call is not None else []
        match name:
            case "datetime.datetime.now" | "datetime.datetime.fromtimestamp" if call is not None:
                zoned = given if name.endswith("now") else given[1:]
                return (rule_for(name, called=True)) if zoned else "RT104"
            case "time.localtime" | "time.ctime" | "time.strftime" | "time.gmtime" if len(given) > (name == "time.strftime"):
                return None if name in ("time.gmtime", "time.strftime") else "RT104"
            case "builtins.hash" | "builtins.id" | "builtins.print" | "builtins.open" | "builtins.input" if call is None:
                return None if name in ("builtins.print", "builtins.input") else rule_for(name, called=False)
            case _:
                return rule_for(name, called=call is not None)

    @staticmethod
    def _method(node: ast.Attribute, call: ast.Call) -> Iterator[Hit]:
        rule = METHODS.get(node.attr)
        if rule is not None:
            yield Hit(node, rule, f".{node.attr}()")
        elif node.attr == "astimezone" and not call.args and not call.keywords:
            yield Hit(node, "RT104", ".astimezone()")

    def _state(self) -> Iterator[Hit]:
        changed: set[str] = set()
        for name, where in mutations(self._node):
            if name not in self._bound and self._is_state(name):
                changed.add(name)
                yield Hit(where, "RT301", f"{ast.unparse(where)[:40]}")
        told: set[str] = set()
        for node in self._nodes:
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id not in self._bound | changed | told:
                owner = self._owner(node.id)
                if owner is not None and owner[1] in owner[0].mutated:
                    told.add(node.id)
                    yield Hit(node, "RT302", node.id)

    def _owner(self, name: str) -> tuple[Module, str] | None:
        """The module of the project at whose top a name is assigned, and its name there."""
        if name in self._module.values:
            return self._module, name
        base, _, attribute = (self._imports.get(name) or self._module.imports.get(name) or "").rpartition(".")
        module = self._module.find(base) if base else None
        return (module, attribute) if module is not None and attribute in module.values else None

    def _is_state(self, name: str) -> bool:
        return self._owner(name) is not None or isinstance(self._module.definitions.get(name), ast.ClassDef)

    def _sets(self) -> Iterator[Hit]:
        sets = frozenset(name for name, value in self._module.values.items() if name not in self._bound and is_set_literal(value))
        for used in ordered_uses(self._node, sets):
            yield Hit(used, "RT303", ast.unparse(used)[:40])

    def _constants(self) -> frozenset[str]:
        return frozenset(
            name
            for name, value in self._module.values.items()
            if name not in self._bound and isinstance(value, ast.Constant) and name not in self._module.mutated
        )

    def _escapes(self) -> Iterator[Hit]:
        if self._connection is None:
            return
        for node in self._nodes:
            match node:
                case ast.Return(value=value) | ast.Yield(value=value) if value is not None and self._has_connection(value):
                    yield Hit(value, "RT304", self._connection)
                case ast.Assign(targets=targets, value=value) if self._has_connection(value):
                    if any(isinstance(target, ast.Attribute | ast.Subscript) and self._outlives(target) for target in targets):
                        yield Hit(value, "RT304", self._connection)
                case ast.Call(func=ast.Attribute(attr="append" | "add" | "put", value=owner), args=[value]) if self._has_connection(value):
                    if self._outlives(owner):
                        yield Hit(value, "RT304", self._connection)
                case _:
                    pass

    def _has_connection(self, value: ast.expr) -> bool:
        parts = value.elts if isinstance(value, ast.Tuple | ast.List) else [value]
        return any(isinstance(part, ast.Name) and part.id == self._connection for part in parts)

    def _outlives(self, target: ast.expr) -> bool:
        name = base_name(target)
        return name is not None and name not in self._bound


def _running(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a body that are executed when it runs: no annotations, no decorators, not what an `except` names."""
    waiting: list[ast.AST] = [*getattr(node, "body", [])]
    while waiting:
        each = waiting.pop()
        yield each
        for field, value in ast.iter_fields(each):
            if field in ("annotation", "returns", "decorator_list") or (isinstance(each, ast.ExceptHandler) and field == "type"):
                continue
            children = cast("list[object]", value if isinstance(value, list) else [value])
            waiting.extend(child for child in children if isinstance(child, ast.AST))
