"""Reads the functions of a project, follows them into its helpers, and says what keeps them from doing the same again.

Reading begins at every transaction, invariant and workflow, and at what compensates a transaction; steps may do anything. A function that
the platform runs itself is a beginning of its own, and is not followed into. `# retroact: allow RT303 because ...` on a line, on a line of
its own above, or on the line of a `def` for all of it, leaves findings out.

This module must not know how findings are shown.
"""

from __future__ import annotations

import ast
import functools
import io
import re
from collections.abc import Callable, Iterator

from retroact.function.code import Code, Source, parse
from retroact.function.kind import Kind
from retroact.function.lint.body import Read, read
from retroact.function.lint.names import Definition, Entry, Module, Place
from retroact.function.lint.rule import RULES, Finding, Severity

_MARK = "retroact: allow"
_ALLOW = r"#\s*retroact:\s*allow\s+(?P<rules>RT\d+(?:\s*,\s*RT\d+)*)(?P<reason>.*)"
Find = Callable[[str], Source | None]


@functools.lru_cache(maxsize=64)
def lint(codes: tuple[Code, ...], only: str | None = None) -> tuple[Finding, ...]:
    """The findings in all modules of one project, by file and line; `only` those that the function of that name runs into."""
    sources = {source.name: source for code in codes for source in code.sources}
    return Linter(sources.get).lint(sorted(sources), only)


class Linter:
    """Reads modules of one project; what was read once is known."""

    def __init__(self, find: Find) -> None:
        self._find = find
        self._modules: dict[str, Module | None] = {}
        self._read: dict[tuple[str, int, str | None], Read] = {}
        self._entries: dict[str, frozenset[int]] = {}
        self._unreadable: dict[str, Finding] = {}

    def lint(self, names: list[str], only: str | None = None) -> tuple[Finding, ...]:
        """The findings of the functions in these modules, wherever they are."""
        found: dict[tuple[str, int, int, str], Finding] = {}
        allowances: dict[str, _Allowances] = {}
        for name in names:
            module = self._module(name)
            if module is None:
                found.update({_key(each): each for each in (self._unreadable.get(name),) if each is not None})
                continue
            allowances[module.source.path] = allowances.get(module.source.path) or _Allowances(module)
            for entry in module.entries():
                if entry.kind is not Kind.STEP and only in (None, entry.name):
                    for finding, place in self._entry(entry):
                        allowed = allowances.get(finding.file) or allowances.setdefault(finding.file, _Allowances(place.module))
                        if not allowed.allows(finding, place.node):
                            found.setdefault(_key(finding), finding)
        if only is None:
            for allowed in allowances.values():
                found.update({_key(finding): finding for finding in allowed.complaints()})
        return tuple(sorted(found.values()))

    def _module(self, name: str) -> Module | None:
        if name not in self._modules:
            source = None
            try:
                source = self._find(name)
                self._modules[name] = Module(source, parse(source.text), self._module) if source is not None else None
            except (OSError, SyntaxError, ValueError) as error:
                self._modules[name] = None
                line, column = getattr(error, "lineno", None) or 1, getattr(error, "offset", None) or 1
                path = source.path if source is not None else f"{name.replace('.', '/')}.py"
                self._unreadable[name] = _finding(path, (line, column, column + 1), "RT002", "", getattr(error, "msg", None) or str(error))
        return self._modules[name]

    def _entry(self, entry: Entry) -> Iterator[tuple[Finding, Place]]:
        waiting = [entry.place]
        seen: set[int] = set()
        while waiting:
            place = waiting.pop()
            if id(place.node) in seen or (place is not entry.place and self._is_entry(place)):
                continue
            seen.add(id(place.node))
            done = self._once(place, entry.connection if place is entry.place else None)
            waiting.extend(done.places)
            for hit in done.hits:
                yield _finding(place.module.source.path, _span(place.module, hit.node), hit.rule, entry.name, hit.name), place

    def _once(self, place: Place, connection: str | None) -> Read:
        key = (place.module.source.name, id(place.node), connection)
        if key not in self._read:
            self._read[key] = read(place, connection)
        return self._read[key]

    def _is_entry(self, place: Place) -> bool:
        name = place.module.source.name
        if name not in self._entries:
            self._entries[name] = frozenset(id(entry.place.node) for entry in place.module.entries())
        return id(place.node) in self._entries[name]


def _key(finding: Finding) -> tuple[str, int, int, str]:
    return finding.file, finding.line, finding.column, finding.rule


def _span(module: Module, node: ast.AST) -> tuple[int, int, int]:
    """Line, first column, and the column after the last, in characters from 1; Python counts bytes from 0."""
    line, first = getattr(node, "lineno", 1), getattr(node, "col_offset", 0)
    last = getattr(node, "end_col_offset", first) if getattr(node, "end_lineno", line) == line else first
    text = module.lines[line - 1]
    if not text.isascii():
        first, last = (len(text.encode()[:byte].decode(errors="replace")) for byte in (first, last))
    return line, first + 1, last + 1


def _finding(path: str, where: tuple[int, int, int], rule: str, function: str, name: str) -> Finding:
    """A finding at a line, from one column to before another."""
    of = RULES[rule]
    line, column, end = where
    return Finding(
        file=path,
        line=line,
        column=column,
        end=max(end, column + 1),
        rule=rule,
        function=function,
        message=of.message.format(name=name),
        remedy=of.remedy,
        severity=of.severity,
    )


class _Allowances:
    """The comments of one module that leave findings out."""

    def __init__(self, module: Module) -> None:
        self._source = module.source
        #: By the line that they speak of: the comment's own line, the rules, and those of them that were used.
        self._by_line: dict[int, tuple[int, frozenset[str], set[str]]] = {}
        self._complaints: list[Finding] = []
        if _MARK in module.source.text:
            self._collect(module)

    def allows(self, finding: Finding, definition: Definition) -> bool:
        """Whether a finding is left out."""
        first = min([definition.lineno, *(decorator.lineno for decorator in definition.decorator_list)])
        lines = [finding.line, *range(first, definition.body[0].lineno)]
        allowed = False
        for line in lines:
            if line in self._by_line and finding.rule in self._by_line[line][1]:
                self._by_line[line][2].add(finding.rule)
                allowed = True
        return allowed

    def complaints(self) -> Iterator[Finding]:
        """What is wrong with the comments themselves."""
        yield from self._complaints
        for line, rules, used in self._by_line.values():
            for rule in sorted(rules - used):
                yield self._complaint(line, f"allows {rule}, and there is nothing to allow")

    def _collect(self, module: Module) -> None:
        import tokenize  # noqa: PLC0415 - most projects have no such comment, and are not to pay for it

        for token in tokenize.generate_tokens(io.StringIO(module.source.text).readline):
            if token.type != tokenize.COMMENT or _MARK not in token.string:
                continue
            line = token.start[0]
            found = re.match(_ALLOW, token.string)
            if found is None:
                self._complaints.append(self._complaint(line, "allows nothing: it names no rule"))
                continue
            rules = frozenset(re.findall(r"RT\d+", found["rules"]))
            unknown = sorted(rules - RULES.keys())
            if unknown:
                self._complaints.append(self._complaint(line, f"names {', '.join(unknown)}, which is no rule"))
            if not found["reason"].strip(" :-,."):
                self._complaints.append(self._complaint(line, "does not say why"))
            alone = not token.line[: token.start[1]].strip()
            speaks_of = _next_code(module.source.text, line) if alone else line
            self._by_line[speaks_of] = (line, rules & RULES.keys(), set())

    def _complaint(self, line: int, name: str) -> Finding:
        return _finding(self._source.path, (line, 1, 2), "RT001", "", name)


def _next_code(text: str, line: int) -> int:
    """The first line after a comment of its own that is neither empty nor a comment."""
    lines = text.splitlines()
    return next((n for n in range(line + 1, len(lines) + 1) if lines[n - 1].strip() and not lines[n - 1].strip().startswith("#")), line)


def grave(finding: Finding) -> bool:
    """Whether a finding is more than good to know."""
    return finding.severity is not Severity.NOTE
