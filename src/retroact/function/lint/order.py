"""Where a body goes through a set in an order that shows: the order of a set of strings follows the hash seed of the process.

This module must not know what a finding is.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from retroact.function.lint.names import nodes_of

_MAKERS = frozenset({"set", "frozenset"})
_OPERATIONS = frozenset({"union", "intersection", "difference", "symmetric_difference", "copy"})
_VIEWS = frozenset({"keys", "items"})
#: Builtins whose result keeps the order of what they are given,
_ORDERED = frozenset({"list", "tuple", "enumerate", "iter", "zip", "map", "filter", "next", "dict", "reversed"})
#: and those in which it makes no difference.
_UNORDERED = frozenset({"sorted", "set", "frozenset", "sum", "min", "max", "any", "all", "len", "Counter"})
_SET_TYPES = frozenset({"set", "frozenset", "Set", "FrozenSet", "AbstractSet", "MutableSet"})


def ordered_uses(function: ast.AST, sets: frozenset[str]) -> Iterator[ast.expr]:
    """The expressions that are sets and are gone through one by one. `sets` are names outside of the function that stand for sets."""
    known = _Sets(function, sets)
    harmless = {id(argument) for node in nodes_of(function) for argument in _harmless(node)}
    for node in nodes_of(function):
        for used in _uses(node, harmless):
            if known.is_set(used):
                yield used


def is_set_literal(value: ast.expr | None) -> bool:
    """Whether an expression makes a set, all by itself."""
    return value is not None and _Sets(ast.Pass(), frozenset()).is_set(value)


def unordered_consumers(function: ast.AST) -> set[int]:
    """The identities of the expressions whose order makes no difference to who takes them."""
    return {id(argument) for node in nodes_of(function) for argument in _harmless(node)}


def _harmless(node: ast.AST) -> list[ast.expr]:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _UNORDERED:
        return node.args
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in ("update", *_OPERATIONS):
        return node.args
    return []


def _uses(node: ast.AST, harmless: set[int]) -> Iterator[ast.expr]:
    match node:
        case ast.For(iter=used) | ast.AsyncFor(iter=used):
            yield used
        case ast.ListComp() | ast.GeneratorExp() | ast.DictComp() if id(node) not in harmless:
            yield from (generator.iter for generator in node.generators)
        case ast.Call(func=ast.Name(id=name), args=args) if name in _ORDERED and id(node) not in harmless:
            yield from args
        case ast.Call(func=ast.Attribute(attr="join"), args=[used]):
            yield used
        case ast.Call(func=ast.Attribute(attr="pop", value=used), args=[]):
            yield used
        case ast.Starred(value=used):
            yield used
        case _:
            pass


class _Sets:
    """Which expressions of a function are sets, as far as can be seen."""

    def __init__(self, function: ast.AST, outside: frozenset[str]) -> None:
        self._names: dict[str, bool] = dict.fromkeys(outside, True)
        for node in nodes_of(function):
            if isinstance(node, ast.arg):
                self._names[node.arg] = _says_set(node.annotation)
        for node in nodes_of(function):
            match node:
                case ast.AnnAssign(target=ast.Name(id=name), annotation=annotation):
                    self._names[name] = _says_set(annotation)
                case ast.Assign(targets=targets, value=value):
                    for target in targets:
                        if isinstance(target, ast.Name):
                            self._names[target.id] = self.is_set(value)
                case ast.For(target=ast.Name(id=name)):
                    self._names[name] = False
                case _:
                    pass

    def is_set(self, node: ast.expr) -> bool:
        match node:
            case ast.Set(elts=elements):
                return not all(isinstance(each, ast.Constant) and isinstance(each.value, int | None) for each in elements)
            case ast.Name(id=name):
                return self._names.get(name, False)
            case ast.Call(func=ast.Name(id=name)):
                return name in _MAKERS
            case ast.Call(func=ast.Attribute(attr=attr, value=value)):
                return attr in _OPERATIONS and self.is_set(value)
            case ast.BinOp(left=left, op=ast.BitOr() | ast.BitAnd() | ast.Sub() | ast.BitXor(), right=right):
                return self.is_set(left) or self.is_set(right) or (_is_view(left) and _is_view(right))
            case _:
                return isinstance(node, ast.SetComp)


def _is_view(node: ast.expr) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _VIEWS and not node.args


def _says_set(annotation: ast.expr | None) -> bool:
    if isinstance(annotation, ast.Subscript):
        annotation = annotation.value
    name = annotation.id if isinstance(annotation, ast.Name) else annotation.attr if isinstance(annotation, ast.Attribute) else ""
    return name in _SET_TYPES
