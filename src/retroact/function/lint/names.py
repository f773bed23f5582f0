"""What the names of a module stand for: something outside of the project, by its full name, or a definition in one of its modules.

This module must not know any rule.
"""

from __future__ import annotations

import ast
import functools
import io
from collections.abc import Callable, Iterator, Mapping

import msgspec

from retroact.function.code import Source, absolute_name
from retroact.function.kind import CONNECTED, Kind

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef
Definition = FunctionNode | ast.ClassDef
#: Methods that change what they belong to.
MUTATORS = frozenset(
    {
        "append", "appendleft", "extend", "extendleft", "insert", "add", "update", "setdefault", "pop", "popleft", "popitem", "remove",
        "discard", "clear", "sort", "reverse", "rotate", "difference_update", "intersection_update", "symmetric_difference_update",
        "subtract", "put", "put_nowait", "get_nowait", "send", "__setitem__", "__next__",
    }
)  # fmt: skip
_KINDS = {kind.value: kind for kind in Kind}
_COMPANIONS = ("compensation", "inquiry")


class Place(msgspec.Struct, frozen=True, eq=False):
    """A definition in a module of the project."""

    module: Module
    node: Definition


class Entry(msgspec.Struct, frozen=True, eq=False):
    """A function that the platform runs: where reading begins."""

    name: str
    kind: Kind
    place: Place

    @property
    def connection(self) -> str | None:
        """The name of the parameter that the connection is given as."""
        node = self.place.node
        if self.kind not in CONNECTED or isinstance(node, ast.ClassDef):
            return None
        given = [*node.args.posonlyargs, *node.args.args]
        return given[0].arg if given else None


class Module:
    """One module, and how it finds the others of its project. It never changes."""

    def __init__(self, source: Source, tree: ast.Module, find: Callable[[str], Module | None]) -> None:
        """The syntax tree is shared: nobody changes it."""
        self.source = source
        self.tree = tree
        self.find = find

    @functools.cached_property
    def lines(self) -> list[str]:
        """Its text, line by line as Python counts them."""
        return [line.rstrip("\n") for line in io.StringIO(self.source.text)]

    @functools.cached_property
    def imports(self) -> Mapping[str, str]:
        """The full names that its own names stand for; of `from m import *` the names `m.*`."""
        return dict(self.imported(_top(self.tree.body)))

    @functools.cached_property
    def definitions(self) -> Mapping[str, Definition]:
        """Its functions and classes, by name."""
        return {node.name: node for node in _top(self.tree.body) if isinstance(node, FunctionNode | ast.ClassDef)}

    @functools.cached_property
    def values(self) -> Mapping[str, ast.expr | None]:
        """The names that it assigns at its top, with what it assigns first."""
        found: dict[str, ast.expr | None] = {}
        for node in _top(self.tree.body):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign | ast.For) else []
            value = node.value if isinstance(node, ast.Assign | ast.AnnAssign) else None
            for target in targets:
                for name in ast.walk(target):
                    if isinstance(name, ast.Name):
                        found.setdefault(name.id, value if isinstance(target, ast.Name) else None)
        return found

    @functools.cached_property
    def mutated(self) -> frozenset[str]:
        """The names at its top that its functions change, or whose values they change."""
        return frozenset(
            name
            for function in nodes_of(self.tree)
            if isinstance(function, FunctionNode)
            for name, _ in mutations(function)
            if name in self.values and name not in bound_in(function)
        )

    def imported(self, nodes: Iterator[ast.AST]) -> Iterator[tuple[str, str]]:
        """What the import statements among nodes bind."""
        for node in nodes:
            if isinstance(node, ast.Import):
                for alias in node.names:
                    top = alias.name.partition(".")[0]
                    yield (alias.asname, alias.name) if alias.asname else (top, top)
            elif isinstance(node, ast.ImportFrom):
                base = absolute_name(self.source.package, node.level, node.module)
                for alias in node.names:
                    name = f"{base}.*" if alias.name == "*" else alias.asname or alias.name
                    yield name, f"{base}.{alias.name}"

    def resolve(self, path: tuple[str, ...], local: Mapping[str, str]) -> str | Place | None:
        """What a dotted name stands for: a place in the project, the full name of what is outside, or None for what nobody knows."""
        full = local.get(path[0]) or self.imports.get(path[0])
        if full is not None:
            return self._absolute((*full.split("."), *path[1:]), depth=0)
        if path[0] in self.definitions:
            return self._defined(path)
        if path[0] in self.values:
            value = self.values[path[0]]
            dotted = dotted_name(value) if value is not None else None  # `now = time.time`
            return self.resolve((*dotted, *path[1:]), {}) if dotted and dotted[0] != path[0] else None
        return self._starred(path) or (f"builtins.{'.'.join(path)}" if path[0] in _BUILTINS else None)

    def _starred(self, path: tuple[str, ...]) -> str | Place | None:
        for star in (name[:-2] for name in self.imports if name.endswith(".*")):
            found = self._absolute((*star.split("."), *path), depth=0)
            if isinstance(found, Place) or (found is not None and self.find(star) is None and path[0] not in _BUILTINS):
                return found
        return None

    def _defined(self, path: tuple[str, ...]) -> Place | None:
        node = self.definitions[path[0]]
        for part in path[1:]:
            inner = (each for each in node.body if isinstance(each, FunctionNode | ast.ClassDef) and each.name == part)
            node = next(inner, node) if isinstance(node, ast.ClassDef) else node
        return Place(self, node)

    def _absolute(self, parts: tuple[str, ...], *, depth: int) -> str | Place | None:
        for length in range(len(parts) - 1, 0, -1):
            module = self.find(".".join(parts[:length]))
            if module is None:
                continue
            rest = parts[length:]
            if rest[0] in module.definitions:
                return module._defined(rest)  # noqa: SLF001 - of another module, and of this class
            further = module.imports.get(rest[0])
            if further is not None and depth < len(parts) + 10:  # re-exported; two modules may name one another
                return self._absolute((*further.split("."), *rest[1:]), depth=depth + 1)
            return None
        return ".".join(parts) if self.find(".".join(parts)) is None else None

    def entries(self) -> Iterator[Entry]:
        """The functions of this module that the platform runs, wherever in it they are defined."""
        for node in nodes_of(self.tree):
            if isinstance(node, FunctionNode):
                kind = self._kind(node)
                if kind is not None:
                    yield Entry(node.name, kind, Place(self, node))
        for name, value in self.values.items():
            if isinstance(value, ast.Call) and len(value.args) == 1 and (kind := self._declares(value.func)) is not None:
                dotted = dotted_name(value.args[0])  # `reserve = transaction(_reserve)`
                place = self.resolve(dotted, {}) if dotted else None
                if isinstance(place, Place):
                    yield Entry(name, kind, place)

    def _kind(self, node: FunctionNode) -> Kind | None:
        for decorator in node.decorator_list:
            named = decorator.func if isinstance(decorator, ast.Call) else decorator
            kind = self._declares(named)
            if kind is not None:
                return kind
            if isinstance(named, ast.Attribute) and named.attr in _COMPANIONS:
                dotted = dotted_name(named.value)
                of = self.resolve(dotted, {}) if dotted else None
                found = of.module._kind(of.node) if isinstance(of, Place) and isinstance(of.node, FunctionNode) else None  # noqa: SLF001
                return Kind.STEP if named.attr == "inquiry" else found
        return None

    def _declares(self, decorator: ast.expr) -> Kind | None:
        dotted = dotted_name(decorator)
        full = self.resolve(dotted, {}) if dotted else None
        if isinstance(full, str) and full.partition(".")[0] == "retroact":
            return _KINDS.get(full.rpartition(".")[2])
        return None


@functools.lru_cache(maxsize=1024)
def nodes_of(tree: ast.AST) -> tuple[ast.AST, ...]:
    """All nodes of a tree, itself first: it is gone through many times."""
    return tuple(ast.walk(tree))


def dotted_name(node: ast.AST | None) -> tuple[str, ...] | None:
    """`a.b.c` as its parts; None for anything else."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.insert(0, node.attr)
        node = node.value
    return (node.id, *parts) if isinstance(node, ast.Name) else None


def base_name(node: ast.AST) -> str | None:
    """The name that an attribute or an item is taken from."""
    while isinstance(node, ast.Attribute | ast.Subscript):
        node = node.value
    return node.id if isinstance(node, ast.Name) else None


def mutations(function: ast.AST) -> Iterator[tuple[str, ast.expr]]:
    """The names whose values a body changes, or that it binds anew outside of itself, and where."""
    declared = {name for node in nodes_of(function) if isinstance(node, ast.Global) for name in node.names}
    for node in nodes_of(function):
        match node:
            case ast.Name(id=id, ctx=ast.Store() | ast.Del()) if id in declared:
                name = id
            case ast.Attribute(ctx=ast.Store() | ast.Del()) | ast.Subscript(ctx=ast.Store() | ast.Del()):
                name = base_name(node)
            case ast.Call(func=ast.Attribute(attr=attr, value=value)) if attr in MUTATORS:
                name = base_name(value)
            case ast.Call(func=ast.Name(id="next"), args=[ast.Name(id=id), *_]):
                name = id
            case _:
                continue
        if name is not None:
            yield name, node


@functools.lru_cache(maxsize=4096)
def bound_in(function: ast.AST) -> frozenset[str]:
    """The names that a function binds for itself: parameters, assignments, inner definitions. Imports stand for what is outside."""
    names: set[str] = set()
    declared: set[str] = set()
    for node in nodes_of(function):
        match node:
            case ast.arg(arg=name):
                names.add(name)
            case ast.Name(id=name, ctx=ast.Store() | ast.Del()):
                names.add(name)
            case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
                names.add(name)
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name) if node is not function:
                names.add(name)
            case ast.Global(names=given):
                declared.update(given)
            case _:
                pass
    return frozenset(names - declared)


def _top(body: list[ast.stmt]) -> Iterator[ast.AST]:
    """The statements at the top of a module, also those under an `if` or a `try`."""
    for statement in body:
        yield statement
        for field in ("body", "orelse", "finalbody"):
            if not isinstance(statement, FunctionNode | ast.ClassDef):
                yield from _top(getattr(statement, field, []))
        for handler in getattr(statement, "handlers", []):
            yield from _top(handler.body)


_BUILTINS = frozenset({"open", "id", "hash", "input", "print", "set", "frozenset", "sorted", "list", "tuple", "next", "iter", "enumerate"})
