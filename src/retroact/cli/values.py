"""Runs, records and the like as JSON values.

This module must not know how they are shown to people.
"""

from __future__ import annotations

import json
from typing import Any

from retroact.cli.times import iso
from retroact.trace.codec import encode_cell
from retroact.trace.record import Cell, Change, Failure, Outcome, Record, Run, Statement


def run_value(run: Run) -> dict[str, Any]:
    """One run."""
    return {
        "run": run.run,
        "function": run.function,
        "kind": run.kind,
        "arguments": parsed(run.arguments),
        "state": run.state.value,
        **outcome_value(run.outcome),
        "reason": run.reason,
        "began": iso(run.began_us),
        "began_us": run.began_us,
        "seconds": None if run.ended_us is None else (run.ended_us - run.began_us) / 1e6,
        "parent": run.parent,
        "parent_step": run.parent_step,
        "fingerprint": run.fingerprint,
        "code": run.code,
    }


def record_value(record: Record) -> dict[str, Any]:
    """One record, with everything in it."""
    return {
        "version": record.version,
        "run": record.run,
        "step": record.step,
        "attempt": record.attempt,
        "function": record.function,
        "kind": record.kind,
        "arguments": parsed(record.arguments),
        "snapshot": record.snapshot if record.visible is None else record.visible,
        "outcome": "committed" if record.outcome.committed else "aborted",
        **outcome_value(record.outcome),
        "began": iso(record.began_us),
        "began_us": record.began_us,
        "seconds": record.elapsed_us / 1e6,
        "fingerprint": record.fingerprint,
        "code": record.code,
        "statements": [statement_value(s) for s in record.statements],
        "changes": [change_value(c) for c in record.changes],
    }


def statement_value(statement: Statement) -> dict[str, Any]:
    """One statement."""
    return {
        "sql": statement.sql,
        "parameters": row_value(statement.parameters),
        "count": statement.count,
        "ordered": statement.ordered,
        "unordered": statement.unordered,
    }


def change_value(change: Change) -> dict[str, Any]:
    """One changed row."""
    return {
        "table": change.table,
        "verb": change.verb.name.lower(),
        "rowid": change.rowid,
        "rowid_after": change.rowid_after,
        "before": row_value(change.before),
        "after": row_value(change.after),
    }


def outcome_value(outcome: Outcome | None) -> dict[str, Any]:
    """The value and the failure of an outcome; both null when there is none yet."""
    if outcome is None:
        return {"value": None, "failure": None}
    return {"value": parsed(outcome.value), "failure": failure_value(outcome.failure)}


def failure_value(failure: Failure | None) -> dict[str, Any] | None:
    """What was raised."""
    if failure is None:
        return None
    return {"error": failure.error, "message": failure.message, "sqlstate": failure.sqlstate, "statement": failure.statement}


def row_value(row: Any) -> dict[str, Any] | None:
    """The cells of a row by column."""
    return None if row is None else {str(column): cell_value(value) for column, value in row.items()}


def cell_value(value: Cell) -> Any:
    """One cell; bytes are {"b": base64}."""
    return encode_cell(value)


def parsed(text: str | None) -> Any:
    """The value of recorded JSON."""
    return None if text is None else json.loads(text)
