"""`retroact trace RUN --step N`: one transaction, looked at whole.

This module must not know how the transaction is executed again, nor how writers and readers are found.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from retroact.cli import opening
from retroact.cli.output import Cell, note, out, paint, print_json, table, width
from retroact.cli.shown import count, result
from retroact.cli.sights import result_table, row_name, statement_line
from retroact.cli.times import show
from retroact.cli.values import cell_value, change_value, record_value, row_value
from retroact.diagram import phrase
from retroact.errors import UnknownStep
from retroact.trace.record import Record, RunId

if TYPE_CHECKING:
    from pathlib import Path

    from retroact.engine.contract import Watched
    from retroact.provenance.transaction import Reader, RowChanged, TransactionView, Written
    from retroact.provenance.writers import Row

_MOST_ROWS = 20


def call(database: Path, run: str, step: int, *, as_json: bool) -> int:
    """Show one transaction of a run."""
    from retroact.provenance.transaction import look_at
    from retroact.replay.shelf import Shelf

    with opening.history_of(database) as history:
        record = _record(history.trace.records_of(history.trace.run(RunId(run)).run), run, step)
        shelf = Shelf(history.trace)
        try:
            with opening.silenced():
                view = look_at(history, record, shelf.function)
        finally:
            shelf.close()
    if as_json:
        print_json(_value(view))
    else:
        _show(view)
    return 0


def _record(records: Sequence[Record], run: str, step: int) -> Record:
    transactions = [record for record in records if record.kind == "transaction"]
    found = next((record for record in reversed(transactions) if record.step == step), None)
    if found is None:
        raise UnknownStep(run=run, step=step, steps=", ".join(str(record.step) for record in transactions) or "none")
    return found


# --- for people ---------------------------------------------------------------------------------------------------------------


def _show(view: TransactionView) -> None:
    record = view.record
    step = f", step {record.step}" if record.step else ""
    lines = (
        ("transaction", paint(phrase.shorten_middle(phrase.call(record.function, record.arguments), width() - 12), "bold")),
        ("run", f"{record.run}{step}"),
        ("version", f"{record.version}, it saw the state as of version {record.snapshot}"),
        ("outcome", result(record.outcome)),
        ("when", f"began {show(record.began_us)}"),
    )
    for name, text in lines:
        out(f"{paint(f'{name:<11}', 'dim')} {text}")
    _section("statements")
    _statements(view)
    _section("rows before and after")
    _rows(view.rows)
    _section("who wrote what it read")
    _written(view.read, view.tables_read)
    _section("who read what it wrote")
    _readers(view.readers, wrote=bool(view.rows))
    for said in view.notes:
        note(f"note: {said}")


def _section(title: str) -> None:
    out(f"\n{paint(title, 'cyan')}")


def _statements(view: TransactionView) -> None:
    if not view.record.statements and not view.statements:
        out("  none")
    for number, recorded in enumerate(view.record.statements if not view.statements else (), start=1):
        given = ", ".join(f":{name} = {phrase.cell(value)}" for name, value in recorded.parameters.items())
        out(f"{paint(f'{number:>3}', 'dim')}  {' '.join(recorded.sql.split())}  {paint(phrase.flat(given), 'dim')}".rstrip())
        out(paint(f"     {count(recorded.count, 'row')} (the record counts them, it does not keep them)", "dim"))
    for statement in view.statements:
        out(f"{paint(f'{statement.number:>3}', 'dim')}  {statement_line(statement)}")
        result_table(statement, most=_MOST_ROWS)


def _rows(rows: Sequence[RowChanged]) -> None:
    if not rows:
        out("  no row changed")
    for changed in rows[:_MOST_ROWS]:
        before, after = changed.before, changed.after
        columns = list(after or before or ())
        moved = {column for column in columns if before is None or after is None or before.get(column) != after.get(column)}
        shown = [
            [Cell(word, "dim"), *(Cell(phrase.cell(row.get(c)), "cyan" if c in moved else "") for c in columns)]
            for word, row in (("before", before), ("after", after))
            if row is not None
        ]
        happened = "  inserted" if before is None else "  deleted" if after is None else ""
        out(f"  {paint(row_name(changed.row), 'bold')}{happened}")
        table(["", *columns], shown, give=len(columns), indent="    ")
    if len(rows) > _MOST_ROWS:
        out(f"  and {count(len(rows) - _MOST_ROWS, 'more row')} (--json has all)")


def _written(read: Sequence[Written], tables: Sequence[str]) -> None:
    if not read and not tables:
        out("  it read no row")
    shown = [[row_name(w.row), *_writer(w), f"statement {', '.join(map(str, w.statements))}"] for w in read[:_MOST_ROWS]]
    if shown:
        table(["row", "version", "run", "function", "read by"], shown, right=(1,), give=2, indent="  ")
    if len(read) > _MOST_ROWS:
        out(f"  and {count(len(read) - _MOST_ROWS, 'more row')} (--json has all)")
    for name in tables:
        out(f"  {name}: read in a way that cannot be taken apart into rows, so this is known of the table only")


def _writer(written: Written) -> tuple[str, str | Cell, str]:
    if written.itself:
        return "", Cell("itself", "dim"), ""
    if written.writer is None:
        return "", Cell("older than the trace", "dim"), ""
    return str(written.writer.version), written.writer.run, written.writer.function


def _readers(readers: Sequence[Reader], *, wrote: bool) -> None:
    if not readers:
        out("  nobody, until it was written anew" if wrote else "  it wrote nothing")
        return
    shown: list[list[Cell | str]] = []
    for reader in readers[:_MOST_ROWS]:
        rows = ", ".join(row_name(row) for row in reader.rows)
        tables = ", ".join(f"{name} (which rows is not known)" for name in reader.tables)
        shown.append([str(reader.record.version), reader.record.run, reader.record.function, ", ".join(filter(None, (rows, tables)))])
    table(["version", "run", "function", "what"], shown, right=(0,), indent="  ")
    if len(readers) > _MOST_ROWS:
        out(f"  and {count(len(readers) - _MOST_ROWS, 'more transaction')} (--json has all)")


# --- for programs -------------------------------------------------------------------------------------------------------------


def _value(view: TransactionView) -> dict[str, Any]:
    return {
        **record_value(view.record),
        **({"statements": [_statement_value(statement) for statement in view.statements]} if view.statements else {}),
        "rows": [{**_row_value(r.row), "before": row_value(r.before), "after": row_value(r.after)} for r in view.rows],
        "read": [
            {
                **_row_value(w.row),
                "statements": list(w.statements),
                "itself": w.itself,
                "writer": None if w.writer is None or w.itself else _who(w.writer),
            }
            for w in view.read
        ],
        "tables_read": list(view.tables_read),
        "readers": [{**_who(r.record), "rows": [_row_value(row) for row in r.rows], "tables": list(r.tables)} for r in view.readers],
        "notes": list(view.notes),
    }


def _statement_value(statement: Watched) -> dict[str, Any]:
    return {
        "sql": statement.sql,
        "parameters": row_value(statement.parameters),
        "count": statement.count,
        "columns": None if statement.columns is None else list(statement.columns),
        "rows": [[cell_value(value) for value in row] for row in statement.rows],
        "changes": [change_value(change) for change in statement.changes],
        "error": None if statement.error is None else f"{type(statement.error).__name__}: {statement.error}",
        "read": [_row_value(row) for row in statement.reads.rows],
        "tables_read": list(statement.reads.tables),
    }


def _row_value(row: Row) -> dict[str, Any]:
    return {"table": row[0], "key": [cell_value(part) for part in row[1]]}


def _who(record: Record) -> dict[str, Any]:
    return {"version": record.version, "run": record.run, "step": record.step, "function": record.function}
