"""The same span of a past in which some columns never had the values that they had: its states and its records.

The state in which the span begins is redacted on a branch. Then the transactions are executed again there, each in its own moment, with
the secrets in their arguments replaced. One that takes the same way as its record (the same statements, as many rows, changes of the
same tables, the same kind of outcome) gets what it now did for its record, digests included: so what it computed from a secret is
computed from what stands for it. One that takes another way keeps its record, with the secrets in it replaced: replay will say that it
diverges.

This module must not know how the code of a record is loaded, nor what becomes of the states.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import apsw
import msgspec

from retroact.engine.contract import Invocation, SchemaMoved, Trial
from retroact.engine.sqlite.branch import Branch
from retroact.engine.sqlite.portable.columns import Column
from retroact.engine.sqlite.portable.records import Row, TraceDraft
from retroact.engine.sqlite.portable.rewriting import changes_row, replaced, statements_row
from retroact.engine.sqlite.portable.secrets import Secrets
from retroact.engine.sqlite.queries import fetch, queries
from retroact.engine.sqlite.relation import Relation
from retroact.errors import CannotRedact
from retroact.function.declare import Function
from retroact.trace.codec import decode_json, encode_json
from retroact.trace.record import Cell, Change, Failure, Outcome, Record, Statement, Verb, Version

#: The function of a record, None when its source is not at hand.
FunctionOf = Callable[[Record], Function[..., Any] | None]
_failure = msgspec.json.Decoder(Failure).decode


class Redactor:
    """Goes through the records of a span on a redacted branch."""

    def __init__(self, source: apsw.Connection, branch: Branch, columns: Sequence[Column], secrets: Secrets) -> None:
        """`branch`: the redacted state in which the span begins."""
        self._source = source
        self._branch = branch
        self._secrets = secrets
        self._columns = {(column.table.lower(), column.name.lower()) for column in columns}
        sql = queries()
        self._relations = {row[0]: Relation.stored(*row) for row in fetch(source, sql["all_relations"])}
        self._numbers: dict[str, int] = dict(fetch(source, sql["all_sql"]))
        self._fresh: dict[str, int] = {}

    def learn(self, records: Iterable[Record]) -> None:
        """Know every value that the columns had meanwhile, and those that statements gave for them. Raises CannotRedact."""
        touching = self._touching()
        for record in records:
            replaced(record.changes, self._cell)
            for statement in record.statements:
                for name in touching.get(statement.sql, frozenset()) & {key.lower() for key in statement.parameters}:
                    self._secrets.hide(next(v for k, v in statement.parameters.items() if k.lower() == name))

    def _touching(self) -> dict[str, frozenset[str]]:
        """For each statement text the names of redacted columns of tables that it reads or writes."""
        found: dict[str, frozenset[str]] = {}
        for text, reads, writes in fetch(self._source, "select text, reads, writes from retroact_sql"):
            read = [column.rpartition(".") for column in decode_json(reads)]
            if any(table.startswith("retroact_") for table, _, _ in read):
                problem = "a statement of the span reads the trace's own tables, which hold it too: " + " ".join(text.split())
                raise CannotRedact(column=", ".join(map(".".join, sorted(self._columns))), problem=problem, remedy="Export other runs.")
            tables = {table.lower() for table, _, _ in read} | {table.lower() for table in decode_json(writes)}
            found[text] = frozenset(name for table, name in self._columns if table in tables)
        return found

    def rewrite(
        self, rows: Sequence[Row], records: Sequence[Record], function_of: FunctionOf, moved: Callable[[Version], None]
    ) -> list[Row]:
        """The rows of the span as they are without the secrets. `moved` is told of each version that changed the schema, when the
        branch stands there. Raises CannotRedact."""
        by_version = {row[0]: row for row in rows}
        done: dict[int, Row] = {}
        # What saw a state comes before what changed it.
        for record in sorted(records, key=lambda r: (r.snapshot, r.snapshot == r.version - 1, r.version)):
            row = by_version[record.version]
            self._secrets.enter(record.run)
            trial = self._again(record, function_of)
            done[record.version] = self._kept(row, record) if trial is None else self._renewed(row, record, trial)
            if any(change.verb is Verb.SCHEMA for change in record.changes):
                moved(record.version)
        return [done[version] for version in sorted(done)]

    def run_row(self, row: Row) -> Row:
        """The row of a workflow without the secrets."""
        hide = self._secrets
        run, function, arguments, state, value, failure, reason, *rest = row
        hide.enter(run)
        told = reason and hide.text(reason)
        return (run, function, hide.json(arguments, named=True), state, hide.json(value), hide.json(failure, named=True), told, *rest)

    def name_texts(self, draft: TraceDraft) -> None:
        """Give the draft the statement texts that the source does not have."""
        for text, number in self._fresh.items():
            draft.name_text(number, text)

    # --- one record ---------------------------------------------------------------------------------------------------------

    def _again(self, record: Record, function_of: FunctionOf) -> Trial | None:
        """Execute a transaction on the branch, and move that on. None: it took another way, or cannot be executed."""
        writes = record.snapshot == record.version - 1
        function = function_of(record) if record.kind == "transaction" else None
        if function is not None:
            arguments = (self._secrets.json(record.arguments, named=True) or "{}").encode()
            invocation = Invocation(run=record.run, step=record.step, function=function, arguments=arguments)
            trial = self._branch.attempt(invocation, record.began_us, invocation.seed)
            same = self._same_way(record, trial)
            if same and writes:
                self._branch.keep()
                self._branch.version = record.version
            else:
                self._branch.undo()
            if same:
                return trial
        if writes:
            self._advance(record)
        return None

    def _advance(self, record: Record) -> None:
        try:
            self._branch.advance(msgspec.structs.replace(record, changes=replaced(record.changes, self._cell)))
        except SchemaMoved:
            problem = f"version {record.version} changed the schema and does not do the same on redacted data"
            remedy = "Export runs from after it, or leave the column out."
            raise self._cannot(problem, remedy) from None
        except apsw.ConstraintError as error:
            # A transaction that is kept as it was recorded, on rows that an earlier one computed anew from redacted values.
            problem = f"what version {record.version} wrote does not fit redacted data that was computed before it ({error})"
            remedy = "Redact what is computed from the column too, export other runs, or leave the column out."
            raise self._cannot(problem, remedy) from None

    def _cannot(self, problem: str, remedy: str) -> CannotRedact:
        return CannotRedact(column=", ".join(map(".".join, sorted(self._columns))), problem=problem, remedy=remedy)

    def _same_way(self, record: Record, trial: Trial) -> bool:
        then, now = record.statements, trial.statements
        return (
            [(self._secrets.text(s.sql), s.count) for s in then] == [(s.sql, s.count) for s in now]
            and _kinds(record.changes) == _kinds(trial.changes)
            and _kind(record.outcome) == _kind(trial.outcome)
            and not self._made_again(trial.changes)
        )

    def _made_again(self, changes: Sequence[Change]) -> bool:
        """Whether a redacted column has got a secret once more: code that knows it, or computes it, wrote it."""
        return any(
            value is not None and (change.table.lower(), column.lower()) in self._columns and self._secrets.tells(value)
            for change in changes
            for row in (change.before or {}, change.after or {})
            for column, value in row.items()
        )

    def _renewed(self, row: Row, record: Record, trial: Trial) -> Row:
        then, now = record.outcome, trial.outcome
        if then.value is not None and now.value is not None:
            self._secrets.derive(decode_json(then.value), decode_json(now.value))
        elif then.failure is not None and now.failure is not None:
            self._secrets.derive(then.failure.message, now.failure.message)
        return self._row(row, now, trial.statements, trial.changes)

    def _kept(self, row: Row, record: Record) -> Row:
        hide = self._secrets
        statements = [
            Statement(
                sql=hide.text(s.sql),
                parameters={name: hide.cell(value) for name, value in s.parameters.items()},
                count=s.count,
                ordered=s.ordered,
                unordered=s.unordered,
            )
            for s in record.statements
        ]
        failure = hide.json(row[10], named=True)
        outcome = Outcome(value=hide.json(row[9]), failure=None if failure is None else _failure(failure))
        return self._row(row, outcome, statements, replaced(record.changes, self._cell))

    def _row(self, row: Row, outcome: Outcome, statements: Sequence[Statement], changes: Sequence[Change]) -> Row:
        version, run, step, attempt, function, arguments, snapshot, began, elapsed, *_, stored = row
        return (
            version,
            run,
            step,
            attempt,
            function,
            self._secrets.json(arguments, named=True),
            snapshot,
            began,
            elapsed,
            outcome.value,
            None if outcome.failure is None else encode_json(outcome.failure).decode(),
            statements_row(statements, self._number),
            changes_row(changes, stored, self._relations),
        )

    def _number(self, text: str) -> int:
        number = self._numbers.get(text)
        if number is None:
            number = self._numbers[text] = self._fresh[text] = max(self._numbers.values(), default=0) + 1
        return number

    def _cell(self, table: str, column: str, value: Cell) -> Cell:
        if (table.lower(), column.lower()) in self._columns:
            return self._secrets.hide(value)
        return self._secrets.cell(value)


def _kinds(changes: Sequence[Change]) -> list[tuple[str, str]]:
    return sorted((change.table, change.verb.value) for change in changes)


def _kind(outcome: Outcome) -> str | None:
    return None if outcome.failure is None else outcome.failure.error
