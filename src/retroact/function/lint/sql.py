"""What the SQL of a body shows: text made from values, sources of time and chance, rows without an order.

This module must not know where a function is defined, nor what a finding is.
"""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator

from retroact.function.lint.names import nodes_of
from retroact.function.lint.order import unordered_consumers


@functools.cache
def _compiled(pattern: str, flags: re.RegexFlag) -> re.Pattern[str]:
    """A pattern, compiled when it is first needed."""
    return re.compile(pattern, flags)


_METHODS = frozenset({"execute", "rows", "row", "value"})
_AMBIENT = functools.partial(
    _compiled,
    r"\b(random|randomblob)\s*\(|\bcurrent_(timestamp|date|time)\b|\b(date|time|datetime|julianday|unixepoch|strftime|timediff)\s*\([^)]*'now'"
    r"|\b(date|time|datetime|julianday|unixepoch)\s*\(\s*\)",
    re.IGNORECASE,
)
_LOCAL = functools.partial(_compiled, r"'localtime'|'utc'", re.IGNORECASE)
_SELECT = functools.partial(_compiled, r"\s*(select|with|values)\b", re.IGNORECASE)
_ORDERED = functools.partial(_compiled, r"\border\s+by\b|\blimit\s+1\b", re.IGNORECASE)
_ONE_ROW = functools.partial(
    _compiled,
    r"^\s*select\s+(count|sum|min|max|avg|total|group_concat)\s*\([^)]*\)\s*(as\s+\w+\s*)?from\b(?!.*\bgroup\s+by\b)",
    re.IGNORECASE | re.DOTALL,
)
_HOW: dict[type[ast.expr], str] = {ast.JoinedStr: "an f-string", ast.BinOp: "an operator", ast.Call: "format()"}


def sql_findings(function: ast.AST, constants: frozenset[str]) -> Iterator[tuple[ast.expr, str, str]]:
    """Place, rule and what was found, for each statement. `constants` are names outside of the function that stand for fixed text."""
    assigned = _assigned_once(function)
    in_order = _used_in_order(function, assigned)
    for call in _calls(function):
        text = call.args[0]
        if isinstance(text, ast.Name):
            text = assigned.get(text.id, text)
        if _is_made_of_values(text, constants):
            yield call.args[0], "RT401", _HOW.get(type(text), "this")
        for part in _texts(text):
            found = _AMBIENT().search(part)
            if found is not None:
                yield call.args[0], "RT402", f"{found[0].rstrip('( ')} in SQL"
            if found is not None and _LOCAL().search(part):
                yield call.args[0], "RT104", "'localtime' in SQL"
            if id(call) in in_order and _SELECT().match(part) and not _ORDERED().search(part) and not _ONE_ROW().match(part):
                yield call.args[0], "RT403", "the select"


def _calls(function: ast.AST) -> Iterator[ast.Call]:
    parameters = {node.arg for node in nodes_of(function) if isinstance(node, ast.arg)}
    for node in nodes_of(function):
        match node:
            case ast.Call(func=ast.Attribute(attr=attr, value=ast.Name(id=name)), args=[_, *_]) if attr in _METHODS and name in parameters:
                yield node
            case _:
                pass


def _assigned_once(function: ast.AST) -> dict[str, ast.expr]:
    found: dict[str, ast.expr] = {}
    again: set[str] = set()
    for node in nodes_of(function):
        if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            name = node.targets[0].id
            again |= {name} & found.keys()
            found[name] = node.value
        elif isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name):
            again.add(node.target.id)
    return {name: value for name, value in found.items() if name not in again}


def _is_made_of_values(text: ast.expr, constants: frozenset[str]) -> bool:
    match text:
        case ast.JoinedStr(values=values):
            return any(isinstance(each, ast.FormattedValue) and not _is_fixed(each.value, constants) for each in values)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            fixed = _is_fixed(left, constants) and _is_fixed(right, constants)
            return not fixed and any(isinstance(node, ast.Constant) and isinstance(node.value, str) for node in ast.walk(text))
        case ast.BinOp(left=ast.Constant(value=str()), op=ast.Mod(), right=right):
            return not _is_fixed(right, constants)
        case ast.Call(func=ast.Attribute(attr="format", value=ast.Constant(value=str())), args=args, keywords=keywords):
            return not all(_is_fixed(each, constants) for each in (*args, *(keyword.value for keyword in keywords)))
        case _:
            return False


def _is_fixed(node: ast.expr, constants: frozenset[str]) -> bool:
    match node:
        case ast.Constant():
            return True
        case ast.Name(id=name):
            return name in constants
        case ast.BinOp(left=left, right=right):
            return _is_fixed(left, constants) and _is_fixed(right, constants)
        case ast.Tuple(elts=elements):
            return all(_is_fixed(each, constants) for each in elements)
        case _:
            return False


def _texts(text: ast.expr) -> Iterator[str]:
    if isinstance(text, ast.JoinedStr):
        yield "".join(each.value if isinstance(each, ast.Constant) and isinstance(each.value, str) else " " for each in text.values)
    elif isinstance(text, ast.Constant) and isinstance(text.value, str):
        yield text.value
    elif isinstance(text, ast.BinOp):
        yield from (part for side in (text.left, text.right) for part in _texts(side))


def _used_in_order(function: ast.AST, assigned: dict[str, ast.expr]) -> set[int]:
    """The calls whose rows are gone through one by one, or returned as a list."""
    harmless = unordered_consumers(function)
    used: set[int] = set()

    def use(node: ast.expr | None) -> None:
        if isinstance(node, ast.Name):
            node = assigned.get(node.id)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "rows":
            used.add(id(node))

    for node in nodes_of(function):
        match node:
            case ast.For(iter=iterated):
                use(iterated)
            case ast.ListComp() | ast.GeneratorExp() | ast.DictComp() if id(node) not in harmless:
                for generator in node.generators:
                    use(generator.iter)
            case ast.Return(value=value):
                use(value)
            case _:
                pass
    return used
