"""Writes the trace: the rows that tell of an attempt, in the transaction of its effects.

Invariants:
  * Versions count up by one without a gap, in commit order; each row carries the chain of the row before.
  * A row names functions, statements and tables by numbers whose rows are in the same or an earlier commit.
  * After a rollback of the whole group, `reload` makes the recorder agree with the file again.

This module must not know groups, threads or acknowledgements (`writer.py`), nor how a body is run (`engine.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import apsw

from retroact.engine.contract import Invocation, RunEnd, RunStart
from retroact.engine.hashing import present_hashing
from retroact.engine.sqlite.connection import Note, RowNote, Shapes
from retroact.engine.sqlite.queries import fetch, queries
from retroact.engine.sqlite.relation import Relation, Relations, encode_changes
from retroact.function.code import Code
from retroact.function.declare import Function
from retroact.trace.codec import chain, encode_cell, encode_json
from retroact.trace.record import ALONE, Outcome, RunState, Version

AnyFunction = Function[..., Any]


class Performed(NamedTuple):
    """How an attempt went: what its record tells besides the invocation and the outcome."""

    began_us: int
    elapsed_us: int
    #: The version that its reads saw; None: the one before its own.
    snapshot: Version | None = None
    notes: Sequence[Note] = ()
    row_notes: list[RowNote] | None = None
    schema_changed: bool = False


class Recorder:
    """The trace of one database, being written. Used only by who holds the writer's transaction."""

    def __init__(self, database: apsw.Connection) -> None:
        self._database = database
        self._sql = queries()
        self._insert_record = self._sql["insert_record"]
        self._insert_alone = self._sql["insert_record_alone"]
        self._codes: dict[AnyFunction, str | None] = {}
        self.reload()

    @property
    def database(self) -> apsw.Connection:
        """The writer's connection, for upkeep of the trace inside its transaction."""
        return self._database

    def reload(self) -> None:
        """Read where the trace stands."""
        rows = fetch(self._database, self._sql["last_record"])
        self.version: int = rows[0][0] if rows else 0
        self._chain: int = rows[0][1] if rows else 0
        self.shapes = Shapes(dict(fetch(self._database, self._sql["all_sql"])))
        self.relations = Relations([Relation.stored(*row) for row in fetch(self._database, self._sql["all_relations"])])
        stored = fetch(self._database, self._sql["all_functions"])
        self._function_numbers: dict[tuple[Any, ...], int] = {tuple(row[1:]): row[0] for row in stored}
        self._numbers: dict[AnyFunction, int] = {}

    def know(self, functions: Sequence[AnyFunction], codes: Mapping[str, Code]) -> None:
        """Store the code of functions (by module) that is not stored yet. Inside a transaction."""
        stored = {row[0] for row in self._database.execute(self._sql["all_codes"])}
        for code in set(codes.values()):
            if code.hash not in stored:
                for source in code.sources:
                    self._database.execute(self._sql["insert_source"], (source.hash, source.text))
                listed = encode_json([(s.name, s.path, s.hash) for s in code.sources]).decode()
                self._database.execute(self._sql["insert_code"], (code.hash, code.main, listed))
        for function in functions:
            code = codes.get(function.module)
            self._codes[function] = code.hash if code else None
            self.number(function)
        self._note_process()

    def _note_process(self) -> None:
        """Tell how this process hashes, unless it is as the last one did."""
        hashing = present_hashing()
        if fetch(self._database, self._sql["last_process"]) != [(hashing.seed, hashing.probe)]:
            self._database.execute(self._sql["insert_process"], (self.version + 1, hashing.seed, hashing.probe))

    def number(self, function: AnyFunction) -> int:
        """The number of a function's row, made when it is new."""
        number = self._numbers.get(function)
        if number is None:
            key = (function.name, function.kind.value, function.fingerprint, self._codes.get(function))
            number = self._function_numbers.get(key)
            if number is None:
                number = max(self._function_numbers.values(), default=0) + 1
                self._database.execute(self._sql["insert_function"], (number, *key))
                self._function_numbers[key] = number
            self._numbers[function] = number
        return number

    def insert(
        self,
        invocation: Invocation,
        outcome: Outcome,
        performed: Performed,
    ) -> Version:
        """Write a record. Raises apsw.ConstraintError when the invocation has one already."""
        row_notes, schema = performed.row_notes, performed.schema_changed
        changes = encode_changes(self._database, self.relations, row_notes or [], schema=schema) if row_notes or schema else None
        version = self.version + 1
        row = (
            version,
            invocation.run,
            invocation.step,
            invocation.attempt,
            self._numbers.get(invocation.function) or self.number(invocation.function),
            invocation.arguments.decode(),
            performed.snapshot,
            performed.began_us,
            performed.elapsed_us,
            outcome.value,
            None if outcome.failure is None else encode_json(outcome.failure).decode(),
            encode_json([_statement(note) for note in performed.notes]).decode() if performed.notes else None,
            changes,
        )
        link = chain(self._chain, row)
        if invocation.step == ALONE and not invocation.fresh:
            self._database.execute(self._insert_alone, (*row, link))
            if self._database.changes() == 0:
                raise apsw.ConstraintError("the run id is that of a workflow")
        else:
            self._database.execute(self._insert_record, (*row, link))
        # Only now: had the guard refused the record, the caller would roll these back with the rest.
        if self.shapes.fresh or self.relations.fresh:
            self._store_fresh()
        self.version, self._chain = version, link
        return Version(version)

    def start_run(self, start: RunStart, state: RunState = RunState.RUNNING) -> bool:
        """Write the row of a workflow; False when it is there already."""
        self._insert_run(start, state, None, None)
        return self._database.changes() == 1

    def end_run(self, end: RunEnd, start: RunStart | None) -> None:
        """Write what became of a workflow, with its start when that is not written yet."""
        if start is not None:
            self._insert_run(start, end.state, end.outcome, end.ended_us)
            return
        value, failure = _outcome(end.outcome)
        row: dict[str, Any] = {"run": end.run, "state": end.state.value, "value": value, "failure": failure}
        self._database.execute(self._sql["end_run"], {**row, "reason": end.reason, "ended_us": end.ended_us})

    def _insert_run(self, start: RunStart, state: RunState, outcome: Outcome | None, ended_us: int | None) -> None:
        number = self.number(start.function)
        row = (start.run, number, start.arguments.decode(), state.value, *_outcome(outcome), start.began_us, ended_us)
        self._database.execute(self._sql["insert_run"], (*row, start.parent, start.parent_step))

    def _store_fresh(self) -> None:
        for shape in self.shapes.fresh:
            reads, writes = encode_json(shape.tables_read).decode(), encode_json(shape.tables_written).decode()
            self._database.execute(self._sql["insert_sql"], (shape.number, shape.sql, reads, writes))
        self.shapes.fresh.clear()
        for relation in self.relations.fresh:
            self._database.execute(self._sql["insert_relation"], (relation.number, relation.name, relation.stored_columns()))
        self.relations.fresh.clear()


def _outcome(outcome: Outcome | None) -> tuple[str | None, str | None]:
    if outcome is None:
        return None, None
    return outcome.value, None if outcome.failure is None else encode_json(outcome.failure).decode()


#: Types whose values JSON does not have as they are.
_CODED = frozenset({bytes, float})


def _statement(note: Note) -> list[Any]:
    shape, parameters, count, ordered, unordered = note
    if not _CODED.isdisjoint(map(type, parameters.values())):
        parameters = {name: encode_cell(cell) for name, cell in parameters.items()}
    if ordered is None:
        return [shape.number, parameters, count]
    return [shape.number, parameters, count, ordered] if unordered == ordered else [shape.number, parameters, count, ordered, unordered]
