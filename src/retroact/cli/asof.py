"""`retroact asof VERSION|TIME SQL`: SQL about any past state.

This module must not know how a past state is opened.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retroact.cli import opening, project
from retroact.cli.failure import BadRequest
from retroact.cli.output import Cell, out, paint, print_json, table
from retroact.cli.shown import count
from retroact.cli.times import FORMS, iso, parse, show
from retroact.cli.values import cell_value
from retroact.diagram import phrase
from retroact.errors import BadStatement

if TYPE_CHECKING:
    from retroact.engine.contract import Branch, History


_EXAMPLE = "Example: retroact asof 12 'select * from inventory'"


def options(parser: argparse.ArgumentParser) -> None:
    """The options of `asof`."""
    parser.add_argument(
        "version", metavar="VERSION|TIME", help="a version (`retroact trace` shows them), or a time: the newest version begun by then"
    )
    parser.add_argument("sql", metavar="SQL", help="a query, as SQLite understands it")
    project.options(parser)
    parser.epilog = f"Times are local: {FORMS}.\n{_EXAMPLE}"


def call(args: argparse.Namespace) -> int:
    """Ask a past state."""
    path = project.past(args)
    with opening.history_of(path) as history:
        version = _version(path, args.version)
        branch = history.at(version)
        try:
            columns, rows = _query(branch, args.sql)
        finally:
            branch.close()
        began_us = _began_us(history, version)
    if args.json:
        _print_json(version, began_us, columns, rows)
    else:
        _print_table(version, began_us, columns, rows)
    return 0


def _version(path: Path, text: str) -> int:
    if text.lstrip("+-").isdigit():
        return int(text)
    until = parse(text, opening.now_us())
    version = opening.ask(path, "select max(version) from retroact_record where began_us <= ?", (until,))[0][0]
    if version is None:
        first = opening.ask(path, "select min(began_us) from retroact_record")[0][0]
        told = f"the first one began {show(first)}" if first is not None else "the trace is empty"
        raise BadRequest(problem=f"no version had begun by {show(until)}: {told}", remedy="Version 0 is the state before the first")
    return int(version)


def _query(branch: Branch, sql: str) -> tuple[list[str], list[tuple[Any, ...]]]:
    """Only reading: what is written on a branch is lost, and to pretend otherwise would mislead. Raises BadStatement."""
    if not sql.strip():
        raise BadRequest(problem="the SQL is empty", remedy="Give a query: retroact asof 12 'select * from inventory'")
    if opening.statements_in(sql) > 1:
        raise BadRequest(problem="there is more than one statement", remedy="Ask one query at a time")
    branch.query("pragma query_only = on")
    try:
        return branch.query(sql)
    except Exception as error:
        if type(error).__module__.partition(".")[0] != "apsw":
            raise
        if type(error).__name__ in ("ReadOnlyError", "AuthError"):
            problem = "the past can be read, not written; `retroact retro` runs it again with changed code"
        elif type(error).__name__ == "BindingsError":
            problem = "it has parameters, and there is nothing to bind to them: write the values into it"
        else:
            problem = str(error)
        raise BadStatement(function="asof", statement=1, problem=problem, sql=sql) from None


def _began_us(history: History, version: int) -> int | None:
    return next((record.began_us for record in history.trace.records_between(version - 1, version)), None)


def _print_json(version: int, began_us: int | None, columns: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> None:
    names = [f"{name}:{columns[:i].count(name) + 1}" if name in columns[:i] else name for i, name in enumerate(columns)]
    values = [dict(zip(names, map(cell_value, row), strict=True)) for row in rows]
    print_json({"version": version, "began": iso(began_us), "columns": names, "rows": values})


def _print_table(version: int, began_us: int | None, columns: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> None:
    if rows:
        numbers = [i for i in range(len(columns)) if all(isinstance(row[i], int | float | None) for row in rows)]
        table(columns, [[_cell(value) for value in row] for row in rows], right=numbers)
    when = f", begun {show(began_us)}" if began_us is not None else ""
    out(paint(f"({count(len(rows), 'row') if rows else 'no rows'} as of version {version}{when})", "dim"))


def _cell(value: Any) -> Cell:
    if isinstance(value, str):
        return Cell(phrase.flat(value))
    return Cell(phrase.cell(value), "dim" if value is None else "")
