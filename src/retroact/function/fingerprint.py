"""What "the same code" means for one function: a hash of its definition and of every definition that it leans on.

A fingerprint is taken from syntax trees, so that comments, docstrings, layout and unrelated neighbours do not count. From the
function's own definition it follows every name that means something in the project (helpers, constants, classes, also in other
modules, also imported inside a function) to the definition it stands for, and so on. It stops at two borders: code outside of
the project counts by its name, and so does a registered function, since that one has a fingerprint of its own.

The graph of definitions is numbered in the order in which it is walked and hashed as it is written down. So cycles are no
problem, and neither the names of modules nor the version that is loaded are part of the result: the same text gives the same
fingerprint as a script, as an import, and as a recorded version beside the present one.

This module must not know how a function is registered or run; it knows a registered function only by how it is written.
"""

from __future__ import annotations

import ast
import functools
import inspect
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from types import CodeType, FunctionType, MethodType
from typing import cast

from retroact.digest import blake2b
from retroact.errors import SourceMissing
from retroact.function.code import Project, Source, absolute_name, parse, project_of

DECORATORS = frozenset({"transaction", "step", "workflow", "invariant"})
"""A module-level function under one of these is a registered function,"""
ATTRIBUTE_DECORATORS = frozenset({"compensation", "inquiry"})
"""and so is one under one of these as the attribute of another function."""

SILENT_FIELDS = frozenset({"ctx", "kind", "type_comment", "type_ignores"})
"""Parts of a syntax tree that say nothing about what the code does."""

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)

NAMELESS = (ast.Constant, ast.expr_context, ast.operator, ast.cmpop)
"""Most nodes of a tree are of these, and take no name from anywhere."""

Dotted = tuple[str, ...]
"""A dotted name as it is written: `models.Order.total`."""
Place = tuple[str, str | None]
"""A name in a module; None is the whole module."""


def fingerprint(callable: Callable[..., object]) -> str:  # noqa: A002 (what it takes is a callable, and nothing else is meant)
    """The hash of a function's code: 16 hex characters, or `b:` and 16 where only its bytecode is at hand.

    It never raises for a function without source; a fingerprint that begins with `b:` changes with the Python version.
    """
    function = unwrapped(callable)
    try:
        return _from_source(function)
    except (SourceMissing, OSError, SyntaxError, ValueError):
        code = getattr(function, "__code__", None)
        name = f"{getattr(function, '__module__', '')}:{getattr(function, '__qualname__', repr(type(function)))}"
        parts = _bytecode(code, getattr(function, "__doc__", None)) if isinstance(code, CodeType) else (name,)
        return f"b:{_digest(parts)}"


def unwrapped(callable: Callable[..., object]) -> object:  # noqa: A002
    """The function or class whose code runs: without wrappers, bound objects and arguments; of an object, its `__call__`."""
    function: object = inspect.unwrap(callable)
    while isinstance(function, functools.partial | MethodType):
        inner: Callable[..., object] = function.func if isinstance(function, functools.partial) else function.__func__
        function = inspect.unwrap(inner)
    if isinstance(function, FunctionType | type):
        return function
    method: object = getattr(type(function), "__call__", None)  # noqa: B004 (this is not a test: the function itself is wanted)
    return method if isinstance(method, FunctionType) else function


def _digest(parts: Iterable[str]) -> str:
    return blake2b("\0".join(parts).encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def _from_source(function: object) -> str:
    if not isinstance(function, FunctionType | type):
        raise SourceMissing(function=repr(function), problem="it is not written in Python")
    made_with = _made_with(function, frozenset()) if isinstance(function, FunctionType) else ()
    return _digest(chain(definitions(function), (function.__qualname__,), made_with))


def definitions(function: FunctionType | type) -> Iterator[str]:
    """The graph of definitions below a function, written down. Raises SourceMissing if no file defines it."""
    module = sys.modules.get(function.__module__)
    generated = isinstance(function, FunctionType) and (
        function.__code__.co_filename.startswith("<") or module is None or function.__globals__ is not vars(module)
    )
    if module is None or generated:
        raise SourceMissing(function=function.__qualname__, problem="it was not defined in a file")
    project = project_of(module)
    source = project.find(project.main)
    root = _root(function, source) if source else None
    if source is None or root is None:
        raise SourceMissing(function=function.__qualname__, problem="its file does not define it")
    return _Walk(project).lines(source, root)


def _bytecode(code: CodeType, doc: str | None) -> Iterator[str]:
    yield from (code.co_name, code.co_code.hex(), code.co_exceptiontable.hex(), repr(code.co_names), repr(code.co_varnames))
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _bytecode(constant, None)
        elif isinstance(constant, frozenset):
            yield repr(sorted(map(repr, cast("frozenset[object]", constant))))
        elif doc is None or constant != doc:
            yield repr(constant)


def _made_with(function: FunctionType, seen: frozenset[int]) -> Iterator[str]:
    """What a function that another function made was made with: their text does not tell two of its kind apart."""
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            value: object = cell.cell_contents
        except ValueError:
            # Not filled yet: a function that is being defined refers to itself.
            continue
        if isinstance(value, int | float | str | bytes | None):
            yield from (name, repr(value))
        elif isinstance(value, FunctionType) and id(value) not in seen:
            yield from (name, *_text_or_bytecode(value), *_made_with(value, seen | {id(function), id(value)}))


def _text_or_bytecode(function: FunctionType) -> tuple[str, ...]:
    try:
        return tuple(definitions(function))
    except (SourceMissing, OSError, SyntaxError, ValueError):
        return tuple(_bytecode(function.__code__, function.__doc__))


# --- Walking: from one definition to all that it leans on -----------------------------------------------------------------


class _Walk:
    """One walk through a project's definitions. Its state is which of them have been met."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self._sources: dict[str, Source | None] = {}
        self._numbers: dict[Place, int] = {}
        self._queue: list[tuple[Source, _Binding]] = []
        self._following: set[tuple[str, Dotted]] = set()

    def lines(self, source: Source, root: _Binding) -> Iterator[str]:
        """The graph below a definition, written down: each definition, and what its names stand for."""
        self._queue.append((source, root))
        for number, (where, binding) in enumerate(self._queue):
            yield f"{number} {binding.digest}"
            for path in binding.references.paths:
                local = binding.references.imports.get(path[0], ())
                targets = [
                    *(target for each in local for target in self._imported(where, each, path[1:])),
                    *self._named(where, path),
                ]
                yield from (f"{'.'.join(path)} {self._label(target)}" for target in targets)

    def _label(self, target: Place | str) -> str:
        if isinstance(target, str):
            return target
        if target not in self._numbers:
            self._numbers[target] = len(self._queue)
            module, name = target
            source = self._find(module)
            assert source is not None, "a place is only ever made of a module that was found"
            scope = _scope(source.text)
            self._queue.append((source, scope.whole if name is None else scope.bindings[name]))
        return str(self._numbers[target])

    def _find(self, name: str) -> Source | None:
        if name not in self._sources:
            self._sources[name] = self._project.find(name)
        return self._sources[name]

    def _named(self, source: Source, path: Dotted) -> Iterator[Place | str]:
        """What a dotted name stands for in the scope of a module: places in the project, or the names of what is outside."""
        if (source.name, path) in self._following:
            return
        self._following.add((source.name, path))
        scope = _scope(source.text)
        binding = scope.bindings.get(path[0])
        if path[0] == "*" or binding is None:
            for each in scope.stars:
                base = absolute_name(source.package, each.level, each.module)
                module = self._find(base)
                if module is not None:
                    yield from [(base, None)] if path[0] == "*" else self._named(module, path)
        elif binding.registered is not None:
            yield f"function {binding.registered}"
        else:
            if binding.statements:
                yield (source.name, path[0])
            for each in binding.imports:
                yield from self._imported(source, each, path[1:])
        self._following.discard((source.name, path))

    def _imported(self, source: Source, each: _Import, rest: Dotted) -> Iterator[Place | str]:
        base = absolute_name(source.package, each.level, each.module)
        if each.name is None:
            yield from self._attribute(base, rest)
            return
        module = self._find(base)
        found = list(self._named(module, (each.name, *rest))) if module else []
        inner = f"{base}.{each.name}"
        if found:
            yield from found
        elif self._find(inner):
            yield from self._attribute(inner, rest)
        else:
            # A project's module may make its names as it likes (`__getattr__`): then all of it counts.
            yield (base, None) if module else f"{base}:{each.name}"

    def _attribute(self, name: str, rest: Dotted) -> Iterator[Place | str]:
        """What an attribute of a module stands for: what it defines under that name, or a module inside of it."""
        module = self._find(name)
        found = list(self._named(module, rest)) if module and rest else []
        if found:
            yield from found
            return
        for length in range(1, len(rest) + 1):
            inner = ".".join((name, *rest[:length]))
            if self._find(inner):
                yield from self._attribute(inner, rest[length:])
                return
        yield (name, None) if module else name


def _root(function: FunctionType | type, source: Source) -> _Binding | None:
    """The definition that a function comes from. What is defined inside of another definition has all of that one."""
    top = function.__qualname__.partition(".")[0]
    binding = _scope(source.text).bindings.get(top)
    line = function.__code__.co_firstlineno if isinstance(function, FunctionType) else 0
    if binding is None or not binding.statements:
        around = (each for each in parse(source.text).body if _first_line(each) <= line <= (each.end_lineno or 0))
        binding = next((_Binding((each,)) for each in around), None)
    if binding is None or function.__qualname__ == top:
        return binding
    inner = (node for statement in binding.statements for node in ast.walk(statement))
    same = (node for node in inner if isinstance(node, (*FUNCTIONS, ast.Lambda)) and _first_line(node) == line)
    return _Binding((*islice(same, 1), *binding.statements))


def _first_line(node: ast.stmt | ast.expr) -> int:
    decorators = node.decorator_list if isinstance(node, (*FUNCTIONS, ast.ClassDef)) else []
    return min((node.lineno, *(each.lineno for each in decorators)))


# --- Scopes: what the names at the top of a module are bound to -----------------------------------------------------------


@dataclass(frozen=True)
class _Import:
    """What an import binds a name to: a module, or a name of a module."""

    level: int
    module: str | None
    name: str | None = None


@dataclass(frozen=True)
class _References:
    """The names that a definition takes from outside of itself, and the imports it makes itself."""

    paths: tuple[Dotted, ...]
    imports: Mapping[str, tuple[_Import, ...]]


@dataclass(frozen=True, eq=False)
class _Binding:
    """All that a module does to one of its names."""

    statements: tuple[ast.AST, ...]
    imports: tuple[_Import, ...] = ()
    registered: str | None = None

    @functools.cached_property
    def digest(self) -> str:
        """The hash of the statements as they are written, but for what says nothing about what they do."""
        parts: list[str] = []
        for each in self.statements:
            _write(each, parts)
        return _digest(parts)

    @functools.cached_property
    def references(self) -> _References:
        """What the statements refer to."""
        names = _Names()
        for each in self.statements:
            names.visit(each, frozenset())
        return _References(tuple(sorted(names.paths)), {name: tuple(each) for name, each in names.imports.items()})


@dataclass(frozen=True, eq=False)
class _Whole(_Binding):
    """A module as a whole: whatever any of its names stands for."""

    names: tuple[str, ...] = ()

    @functools.cached_property
    def references(self) -> _References:
        """Every name of the module, and what it imports by star."""
        return _References(tuple((name,) for name in sorted({*self.names, "*"})), {})


@dataclass(frozen=True, eq=False)
class _Scope:
    """The names at the top of a module."""

    bindings: Mapping[str, _Binding]
    stars: tuple[_Import, ...]

    @functools.cached_property
    def whole(self) -> _Binding:
        """All of the module as one definition."""
        return _Whole((), names=tuple(self.bindings))


@dataclass(frozen=True)
class _Piece:
    """One thing that a module does to a name."""

    name: str
    nodes: tuple[ast.AST, ...] = ()
    source: _Import | None = None
    registered: str | None = None
    changes_only: bool = False


@functools.lru_cache(maxsize=256)
def _scope(text: str) -> _Scope:
    pieces: dict[str, list[_Piece]] = {}
    for piece in _pieces(parse(text).body, ()):
        pieces.setdefault(piece.name, []).append(piece)
    stars = tuple(piece.source for piece in pieces.pop("*", ()) if piece.source)
    return _Scope({name: _bound(each) for name, each in pieces.items() if not all(one.changes_only for one in each)}, stars)


def _bound(pieces: Sequence[_Piece]) -> _Binding:
    imports = tuple(piece.source for piece in pieces if piece.source)
    made = any(piece.nodes and not piece.changes_only for piece in pieces)
    statements = tuple(node for piece in pieces for node in piece.nodes) if made else ()
    return _Binding(statements, imports, next((piece.registered for piece in pieces if piece.registered), None))


def _pieces(body: Iterable[ast.stmt], guards: tuple[ast.AST, ...]) -> Iterator[_Piece]:
    """What each statement at the top of a module does to names. Guards are the conditions it stands under."""
    for statement in body:
        match statement:
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                yield _Piece(statement.name, (*guards, statement), registered=_registered(statement))
            case ast.ClassDef():
                yield _Piece(statement.name, (*guards, statement))
            case ast.Import() | ast.ImportFrom():
                yield from (_Piece(name, source=each) for name, each in _imports(statement))
            case _:
                inner = list(_inner(statement))
                headers = tuple(_headers(statement)) if inner else (statement,)
                for name, changes_only in _touched(headers):
                    yield _Piece(name, (*guards, *headers), changes_only=changes_only)
                for body_of in inner:
                    yield from _pieces(body_of, (*guards, *headers))


def _inner(statement: ast.stmt) -> Iterator[list[ast.stmt]]:
    """The bodies of a compound statement."""
    for field in ("body", "orelse", "finalbody"):
        if hasattr(statement, field):
            yield getattr(statement, field)
    for field in ("handlers", "cases"):
        yield from (each.body for each in getattr(statement, field, ()))


def _headers(statement: ast.stmt) -> Iterator[ast.AST]:
    """What a compound statement says before its bodies: conditions, targets, contexts, patterns."""
    for child in ast.iter_child_nodes(statement):
        if isinstance(child, ast.match_case):
            yield from (each for each in (child.pattern, child.guard) if each)
        elif isinstance(child, ast.ExceptHandler):
            yield from (child.type,) if child.type else ()
        elif not isinstance(child, ast.stmt):
            yield child


def _touched(nodes: Iterable[ast.AST]) -> Iterator[tuple[str, bool]]:
    """The names that are bound (False), or whose value is changed in place (True): `TABLE[k] = v`, `TABLE.update(...)`."""
    for top in nodes:
        for node in ast.walk(top):
            match node:
                case ast.Name(id=name, ctx=ast.Store() | ast.Del()):
                    yield name, False
                case ast.Attribute(ctx=ast.Store() | ast.Del()) | ast.Subscript(ctx=ast.Store() | ast.Del()):
                    yield from ((name, True) for name in _base(node))
                case ast.Expr(value=ast.Call(func=ast.Attribute() as function)):
                    yield from ((name, True) for name in _base(function))
                case _:
                    yield from ((name, False) for name in _caught(node))


def _base(node: ast.expr) -> Iterator[str]:
    while isinstance(node, ast.Attribute | ast.Subscript):
        node = node.value
    if isinstance(node, ast.Name):
        yield node.id


def _caught(node: ast.AST) -> Iterator[str]:
    """The names that a pattern or an exception handler binds; they are not nodes of their own."""
    match node:
        case ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)) | ast.MatchMapping(rest=str(name)):
            yield name
        case ast.ExceptHandler(name=str(name)):
            yield name
        case _:
            pass


def _imports(statement: ast.Import | ast.ImportFrom) -> Iterator[tuple[str, _Import]]:
    for alias in statement.names:
        if isinstance(statement, ast.ImportFrom):
            yield alias.asname or alias.name, _Import(statement.level, statement.module, alias.name)
        elif alias.asname:
            yield alias.asname, _Import(0, alias.name)
        else:
            top = alias.name.partition(".")[0]
            yield top, _Import(0, top)


def _registered(statement: ast.FunctionDef | ast.AsyncFunctionDef) -> str | None:
    """The name that a function is registered under, if its decorators say that it is one."""
    for decorator in statement.decorator_list:
        call = decorator if isinstance(decorator, ast.Call) else None
        match call.func if call else decorator:
            case ast.Name(id=last) if last in DECORATORS:
                pass
            case ast.Attribute(attr=last) if last in DECORATORS | ATTRIBUTE_DECORATORS:
                pass
            case _:
                continue
        for keyword in call.keywords if call else ():
            if keyword.arg == "name" and isinstance(keyword.value, ast.Constant):
                return str(keyword.value.value)
        return statement.name
    return None


# --- Trees: writing one down, and the names that it takes from outside ----------------------------------------------------


def _write(node: ast.AST, parts: list[str]) -> None:
    """Write a tree down so that equal code gives equal text in every Python version: what is empty is not mentioned."""
    parts.append(type(node).__name__)
    for field in node._fields:
        value: object = getattr(node, field, None)
        if value is None or value == [] or field in SILENT_FIELDS:
            continue
        parts.append(field)
        if isinstance(value, ast.AST):
            _write(value, parts)
        elif isinstance(value, list):
            items = cast("list[object]", value)
            for item in items[1:] if field == "body" and _has_docstring(node) else items:
                if isinstance(item, ast.AST):
                    _write(item, parts)
                else:
                    parts.append(repr(item))
            parts.append("]")
        else:
            parts.append(repr(value))
    parts.append(")")


def _has_docstring(node: ast.AST) -> bool:
    if not isinstance(node, (*FUNCTIONS, ast.ClassDef)):
        return False
    first = node.body[0]
    return isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str)


class _Names:
    """Collects the names that a tree takes from the module around it."""

    def __init__(self) -> None:
        self.paths: set[Dotted] = set()
        self.imports: dict[str, list[_Import]] = {}

    def visit(self, node: ast.AST, bound: frozenset[str]) -> None:
        """Collect from a node, in which the bound names mean something of its own."""
        if isinstance(node, NAMELESS):
            return
        match node:
            case ast.Name() | ast.Attribute():
                self._visit_attribute(node, bound)
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                self._visit_function(node, bound)
            case ast.Lambda():
                self._visit_all(_defaults(node.args), bound)
                self.visit(node.body, bound | _parameters(node.args))
            case ast.ClassDef():
                self._visit_class(node, bound)
            case ast.ListComp() | ast.SetComp() | ast.GeneratorExp() | ast.DictComp():
                self._visit_comprehension(node, bound)
            case ast.AnnAssign():
                self._visit_annotation(node.annotation, bound)
                self._visit_all((node.target, *((node.value,) if node.value else ())), bound)
            case ast.Import() | ast.ImportFrom():
                self._visit_import(node)
            case _:
                self._visit_all(ast.iter_child_nodes(node), bound)

    def _visit_all(self, nodes: Iterable[ast.AST], bound: frozenset[str]) -> None:
        for node in nodes:
            self.visit(node, bound)

    def _visit_attribute(self, node: ast.Name | ast.Attribute, bound: frozenset[str]) -> None:
        attributes: list[str] = []
        inner: ast.expr = node
        while isinstance(inner, ast.Attribute):
            attributes.insert(0, inner.attr)
            inner = inner.value
        if not isinstance(inner, ast.Name):
            self.visit(inner, bound)
        elif inner.id not in bound:
            self.paths.add((inner.id, *attributes))

    def _visit_import(self, node: ast.Import | ast.ImportFrom) -> None:
        for name, each in _imports(node):
            self.imports.setdefault(name, []).append(each)
            # A module is followed when it is used; a name of one is wanted as soon as it is imported.
            if each.name is not None:
                self.paths.add((name,))

    def _visit_comprehension(self, node: ast.ListComp | ast.SetComp | ast.GeneratorExp | ast.DictComp, bound: frozenset[str]) -> None:
        # The first sequence is evaluated outside, where the targets are not bound yet.
        self.visit(node.generators[0].iter, bound)
        self._visit_all(ast.iter_child_nodes(node), bound | _locals(each.target for each in node.generators))

    def _visit_function(self, node: ast.FunctionDef | ast.AsyncFunctionDef, bound: frozenset[str]) -> None:
        self._visit_all((*node.decorator_list, *_defaults(node.args)), bound)
        for annotation in (*(each.annotation for each in _arguments(node.args)), node.returns):
            if annotation is not None:
                self._visit_annotation(annotation, bound)
        self._visit_all(node.body, bound | _parameters(node.args) | _locals(node.body))

    def _visit_class(self, node: ast.ClassDef, bound: frozenset[str]) -> None:
        self._visit_all((*node.decorator_list, *node.bases, *node.keywords), bound)
        # The names of a class's body are not those of the functions in it.
        own = bound | _locals(node.body)
        for each in node.body:
            self.visit(each, bound if isinstance(each, (*FUNCTIONS, ast.ClassDef)) else own)

    def _visit_annotation(self, node: ast.expr, bound: frozenset[str]) -> None:
        self.visit(node, bound)
        for each in ast.walk(node):
            if isinstance(each, ast.Constant) and isinstance(each.value, str):
                try:
                    self.visit(ast.parse(each.value.strip(), mode="eval"), bound)
                except (SyntaxError, ValueError):
                    # It is not a postponed annotation but plain text, as in Literal["paid"].
                    continue


def _arguments(arguments: ast.arguments) -> Iterator[ast.arg]:
    return (each for each in ast.iter_child_nodes(arguments) if isinstance(each, ast.arg))


def _parameters(arguments: ast.arguments) -> frozenset[str]:
    return frozenset(each.arg for each in _arguments(arguments))


def _defaults(arguments: ast.arguments) -> Iterator[ast.expr]:
    return (each for each in (*arguments.defaults, *arguments.kw_defaults) if each)


def _locals(body: Iterable[ast.AST]) -> frozenset[str]:
    """The names that a body binds for itself. Imported names are left out: they stand for something outside."""
    names: set[str] = set()
    declared: set[str] = set()
    pending = list(body)
    while pending:
        node = pending.pop()
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                names.add(node.name)
            case ast.Lambda() | ast.ListComp() | ast.SetComp() | ast.GeneratorExp() | ast.DictComp():
                pass
            case ast.Global():
                declared.update(node.names)
            case ast.Name(id=name, ctx=ast.Store() | ast.Del()):
                names.add(name)
            case _:
                names.update(_caught(node))
                pending.extend(ast.iter_child_nodes(node))
    return frozenset(names - declared)
