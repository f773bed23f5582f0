"""`retroact lint`: what in the code of functions keeps them from doing the same again. The code is read, not executed.

This module must not know any rule.
"""

from __future__ import annotations

import argparse
import functools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from retroact.cli import project
from retroact.cli.failure import NO, BadRequest
from retroact.cli.output import note, out, paint, print_json
from retroact.cli.shown import count
from retroact.function.lint.rule import RULES, Finding, Severity

if TYPE_CHECKING:
    from retroact.function.code import Project

_STYLE = {Severity.ERROR: "red", Severity.WARNING: "yellow", Severity.NOTE: "cyan"}
_LEFT_OUT = frozenset({"venv", "node_modules", "site-packages", "dist-packages", "__pycache__", "build", "dist"})


def options(parser: argparse.ArgumentParser) -> None:
    """The options of `lint`."""
    parser.add_argument(
        "paths", metavar="PATH", nargs="*", type=Path, help="files and folders (default: `code` in retroact.toml, else this folder)"
    )
    parser.add_argument("--strict", action="store_true", help="warnings are a no, too")
    parser.add_argument("--notes", action="store_true", help="show notes, which need nothing done")
    parser.add_argument("--ignore", metavar="RULE", action="append", default=[], help="leave a rule out (in retroact.toml: [lint] ignore)")
    parser.add_argument("--sarif", action="store_true", help="print SARIF 2.1.0, which editors and code hosts read")
    parser.add_argument("-o", "--output", metavar="FILE", type=Path, help="write what --sarif or --json prints to a file")
    parser.add_argument("--rules", action="store_true", help="list the rules, and do nothing else")
    parser.epilog = (
        "Example: retroact lint shop.py --strict\n\n"
        "A finding is left out by a comment on its line, above it, or on the line of its def:\n"
        "    for item in items:  # retroact: allow RT303 the rows are summed\n\n"
        "Exit code 1: there are errors (with --strict: or warnings)."
    )


class _Found(NamedTuple):
    """What was found, with paths from here, and in how many files."""

    findings: tuple[Finding, ...]
    files: int


def call(args: argparse.Namespace) -> int:
    """Read and report."""
    if args.rules:
        return _list_rules(as_json=args.json)
    if args.output is not None and not (args.sarif or args.json):
        raise BadRequest(problem="--output needs a format", remedy="Add --sarif or --json")
    found = _read(args)
    shown = tuple(f for f in found.findings if args.notes or f.severity is not Severity.NOTE)
    if args.sarif or args.json:
        _write(_sarif(found.findings) if args.sarif else _values(found), args.output)
    else:
        for finding in shown:
            _show(finding, _lines(finding.file))
        _summary(found, hidden=len(found.findings) - len(shown))
    grave = {Severity.ERROR, *([Severity.WARNING] if args.strict else [])}
    return NO if any(finding.severity in grave for finding in found.findings) else 0


def _read(args: argparse.Namespace) -> _Found:
    from retroact.function.code import project_at
    from retroact.function.lint.linter import Linter

    ignored = _ignored(args)
    by_root: dict[Path, dict[str, Project]] = {}
    for path in _files(args.paths or [_default()]):
        one, root = project_at(path)
        by_root.setdefault(root, {})[one.main] = one
    findings: list[Finding] = []
    for root, projects in by_root.items():
        any_of = next(iter(projects.values()))
        linter = Linter(lambda name, projects=projects, any_of=any_of: projects.get(name, any_of).find(name))
        findings += [_from_here(finding, root) for finding in linter.lint(sorted(projects)) if finding.rule not in ignored]
    return _Found(tuple(dict.fromkeys(sorted(findings))), sum(map(len, by_root.values())))


def _from_here(finding: Finding, root: Path) -> Finding:
    import msgspec

    return msgspec.structs.replace(finding, file=os.path.relpath(root / finding.file))


def _ignored(args: argparse.Namespace) -> set[str]:
    ignored = {*args.ignore, *project.ignored_rules(Path.cwd())}
    unknown = sorted(ignored - RULES.keys())
    if unknown:
        raise BadRequest(problem=f"there is no rule {', '.join(unknown)}", remedy="`retroact lint --rules` lists them")
    return ignored


def _default() -> Path:
    file = project.nearest(Path.cwd())
    return project.code(argparse.Namespace(code=None)) if file is not None else Path()


def _files(paths: Sequence[Path]) -> Iterator[Path]:
    """The Python files that are meant. Raises NoProject, BadRequest."""
    for path in paths:
        if not project.existing_code(path).is_dir():
            yield path
            continue
        found = sorted(_below(path))
        if not found:
            raise BadRequest(problem=f"there is no Python file in {path}", remedy="Give files or folders with Python code")
        yield from found


def _below(folder: Path) -> Iterator[Path]:
    for place, folders, names in os.walk(folder):
        folders[:] = [n for n in folders if n not in _LEFT_OUT and not n.startswith(".") and not (Path(place, n) / "pyvenv.cfg").exists()]
        yield from (Path(place, name) for name in names if name.endswith(".py"))


@functools.cache
def _lines(file: str) -> list[str]:
    import importlib.util

    return importlib.util.decode_source(Path(file).read_bytes()).splitlines()


# --- for people -------------------------------------------------------------------------------------------------------------


def _show(finding: Finding, lines: Sequence[str]) -> None:
    style = _STYLE[finding.severity]
    out(f"{paint(f'{finding.severity.value}[{finding.rule}]', style)} {paint(finding.message, 'bold')}")
    number = str(finding.line)
    margin = " " * len(number)
    where = f"{finding.file}:{finding.line}:{finding.column}" + (f" in {finding.function}" if finding.function else "")
    out(f"{margin}{paint('-->', 'blue')} {where}")
    line = lines[finding.line - 1] if finding.line <= len(lines) else ""
    indent = len(line) - len(line.lstrip())
    marked = "^" * max(min(finding.end - finding.column, len(line) - finding.column + 1), 1)
    gutter = paint("|", "blue")
    out(f"{margin} {gutter}")
    out(f"{paint(number, 'blue')} {gutter} {line[indent:]}")
    out(f"{margin} {gutter} {' ' * max(finding.column - 1 - indent, 0)}{paint(marked, style)}")
    out(f"{margin} {paint('=', 'blue')} {paint('remedy', 'bold')}: {finding.remedy}")
    out()


def _summary(found: _Found, *, hidden: int) -> None:
    numbers = {severity: sum(f.severity is severity for f in found.findings) for severity in Severity}
    parts = [paint(count(numbers[s], s.value), _STYLE[s]) for s in Severity if numbers[s]]
    files = count(found.files, "file")
    out(f"{', '.join(parts)} in {files}" if parts else f"{paint('Nothing found', 'green')} in {files}")
    if hidden:
        note(f"--notes shows the {'note' if hidden == 1 else 'notes'}, where nothing needs to be done")


def _list_rules(*, as_json: bool) -> int:
    if as_json:
        print_json([rule._asdict() for rule in RULES.values()])
        return 0
    for rule in RULES.values():
        out(f"{paint(rule.id, 'bold')} {rule.name} {paint(f'({rule.severity.value})', _STYLE[rule.severity])}")
        out(f"    {rule.message.replace('{name}', '…')}")
        out(f"    {paint('remedy', 'bold')}: {rule.remedy}")
    return 0


# --- for programs -----------------------------------------------------------------------------------------------------------


def _write(value: object, file: Path | None) -> None:
    if file is None:
        print_json(value)
        return
    import json

    try:
        file.write_text(json.dumps(value, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise BadRequest(problem=f"{file} cannot be written: {error.strerror}", remedy="Give another file to --output") from None


def _values(found: _Found) -> dict[str, object]:
    import msgspec

    numbers = {f"{severity.value}s": sum(f.severity is severity for f in found.findings) for severity in Severity}
    return {"findings": [msgspec.to_builtins(finding) for finding in found.findings], "files": found.files, **numbers}


def _sarif(findings: Sequence[Finding]) -> dict[str, object]:
    """The findings as SARIF 2.1.0 has them: one run of one tool, with its rules."""
    ids = list(RULES)
    rules = [
        {
            "id": rule.id,
            "name": "".join(word.capitalize() for word in rule.name.split("-")),
            "shortDescription": {"text": rule.message.replace("{name}", "What is named")},
            "help": {"text": rule.remedy},
            "defaultConfiguration": {"level": rule.severity.value},
        }
        for rule in RULES.values()
    ]
    results = [
        {
            "ruleId": finding.rule,
            "ruleIndex": ids.index(finding.rule),
            "level": finding.severity.value,
            "message": {"text": f"{finding.message}. {finding.remedy}"},
            "locations": [
                {
                    "physicalLocation": {
                        "artifactLocation": {"uri": _uri(finding.file), "uriBaseId": "SRCROOT"},
                        "region": {"startLine": finding.line, "startColumn": finding.column, "endColumn": finding.end},
                    },
                    **({"logicalLocations": [{"name": finding.function, "kind": "function"}]} if finding.function else {}),
                }
            ],
        }
        for finding in findings
    ]
    driver = {"name": "retroact", "rules": rules}
    run = {
        "tool": {"driver": driver},
        "columnKind": "unicodeCodePoints",
        "originalUriBaseIds": {"SRCROOT": {"uri": Path.cwd().as_uri() + "/"}},
        "results": results,
    }
    return {"$schema": "https://json.schemastore.org/sarif-2.1.0.json", "version": "2.1.0", "runs": [run]}


def _uri(file: str) -> str:
    from urllib.parse import quote

    return quote(Path(file).as_posix())
