"""Writes the trace: the statements that tell of an attempt, as texts that ride in somebody's flight.

Functions and SQL texts are named by numbers, which are fetched once by each process, outside of any transaction of the application.

This module must not know how flights are sent, nor how a body is run.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from retroact.engine.contract import Invocation, RunEnd, RunStart
from retroact.engine.postgres.connection import Note
from retroact.engine.postgres.literal import literal, optional, text
from retroact.engine.postgres.patience import Patience
from retroact.engine.postgres.queries import queries
from retroact.engine.postgres.session import Session
from retroact.engine.postgres.shape import Shape, understand
from retroact.function.code import Code
from retroact.function.declare import Function
from retroact.function.kind import Kind
from retroact.trace.codec import chain, digest, encode_cell, encode_json
from retroact.trace.record import Outcome, RunState

AnyFunction = Function[..., Any]


class Performed(NamedTuple):
    """How an attempt went: what its record tells besides the invocation and the outcome."""

    began_us: int
    elapsed_us: int
    attempt: int = 1
    notes: Sequence[Note] = ()
    #: What its reads saw, when that is known before it is recorded.
    snapshot: str | None = None


class Recorder:
    """Makes the statements of the trace of one database. Safe for use by several threads."""

    def __init__(self, own: Patience, process: int) -> None:
        self._own = own
        self._process = process
        self._sql = queries()
        self._lock = threading.Lock()
        self._shapes: dict[str, Shape] = {}
        self._codes: dict[AnyFunction, str] = {}
        self._numbers: dict[AnyFunction, int] = {}
        self._texts: dict[str, int] = own.run(lambda session: dict(session.rows(self._sql["all_sql"])))

    # --- numbers -----------------------------------------------------------------------------------------------------------

    def shape_of(self, sql: str, function: str, statement: int) -> Shape:
        """What a text is, under its number. Raises BadStatement."""
        return self._shapes.get(sql) or self._learn(sql, function, statement)

    def _learn(self, sql: str, function: str, statement: int) -> Shape:
        from retroact.errors import BadStatement  # noqa: PLC0415 - only what cannot be text comes here

        if not isinstance(sql, str):  # pyright: ignore[reportUnnecessaryIsInstance] - bodies are not type-checked for us
            raise BadStatement(function=function, statement=statement, problem="SQL is given as text", sql=repr(sql))
        shape = understand(sql, function, statement)
        try:
            named = {"digest": text(digest(sql.encode())), "text": text(sql), "volatile": text(encode_json(shape.volatile).decode())}
        except ValueError as error:
            raise BadStatement(function=function, statement=statement, problem=str(error), sql=repr(sql)) from None
        with self._lock:
            number = self._texts.get(sql)
            if number is None:
                number = self._texts[sql] = self._own.run(lambda session: self._stored(session, named))
            shape = self._shapes[sql] = dataclasses.replace(shape, number=number)
        return shape

    def _stored(self, session: Session, named: dict[str, str]) -> int:
        session.flight(self._sql["learn_sql"].format(**named).encode())
        return int(session.rows(self._sql["sql_number"].format(**named))[0][0])

    def know(self, functions: Sequence[AnyFunction], codes: Mapping[str, Code]) -> None:
        """Store functions and their code (by module) where they are not stored yet."""
        self._codes.update({function: code.hash for function in functions if (code := codes.get(function.module)) is not None})
        self._own.run(lambda session: self._store_codes(session, codes))
        for function in functions:
            self.number(function)

    def _store_codes(self, session: Session, codes: Mapping[str, Code]) -> None:
        stored = {row[0] for row in session.rows(self._sql["all_codes"])}
        for code in set(codes.values()):
            if code.hash in stored:
                continue
            for source in code.sources:
                named = {"hash": text(source.hash), "text": text(source.text)}
                session.flight(self._sql["insert_source"].format(**named).encode())
            listed = encode_json([(s.name, s.path, s.hash) for s in code.sources]).decode()
            named = {"hash": text(code.hash), "main": text(code.main), "sources": text(listed)}
            session.flight(self._sql["insert_code"].format(**named).encode())

    def number(self, function: AnyFunction) -> int:
        """The number of a function's row, made when it is new."""
        number = self._numbers.get(function)
        if number is None:
            isolation = function.options.isolation.value if function.kind is Kind.TRANSACTION else ""
            key = (function.name, function.kind.value, function.fingerprint, self._codes.get(function, ""), isolation)
            number = self._numbers[function] = self._own.run(lambda session: self._function_number(session, key))
        return number

    def _function_number(self, session: Session, key: tuple[str, ...]) -> int:
        for _ in range(2):
            known = {tuple(row[1:]): int(row[0]) for row in session.rows(self._sql["all_functions"])}
            if key in known:
                return known[key]
            named = dict(zip(("name", "kind", "fingerprint", "code", "isolation"), map(text, key), strict=True))
            session.flight(self._sql["insert_function"].format(**named).encode())
        return {tuple(row[1:]): int(row[0]) for row in session.rows(self._sql["all_functions"])}[key]

    # --- statements of the trace ---------------------------------------------------------------------------------------------

    def record(self, invocation: Invocation, outcome: Outcome, performed: Performed, *, how: str = "retroact_record") -> str:
        """The record of an invocation: `retroact_record` inside the transaction of its effects, `retroact_result` for what has none,
        `retroact_read` for a read whose record comes later."""
        row = (
            invocation.run,
            int(invocation.step),
            performed.attempt,
            self.number(invocation.function),
            invocation.arguments.decode(),
            performed.began_us,
            performed.elapsed_us,
            outcome.value,
            None if outcome.failure is None else encode_json(outcome.failure).decode(),
            statements(performed.notes),
        )
        told = ",".join(map(literal, (*row, chain(0, row))))
        return f"execute {how}({told})" if how == "retroact_record" else f"execute {how}({told},{optional(performed.snapshot)})"

    def begin(self, start: RunStart) -> str:
        """The beginning of a workflow."""
        row = (start.run, self.number(start.function), start.arguments.decode(), start.began_us, start.parent, start.parent_step)
        return f"execute retroact_begin({','.join(map(literal, (*row, chain(0, row), self._process)))})"

    def end(self, end: RunEnd) -> str:
        """What became of a workflow."""
        reason = None if end.reason is None else end.reason.replace("\x00", "\\0")
        if end.state.terminal:
            row = (end.run, end.state.value, *_told(end.outcome), reason, end.ended_us)
            return f"execute retroact_end({','.join(map(literal, row))})"
        name = "put_back" if end.state is RunState.RUNNING else "put_aside"
        named: dict[str, Any] = {"run": end.run, "state": end.state.value, "reason": reason, "ended_us": end.ended_us}
        named["process"] = self._process
        return self._sql[name].format(**{key: literal(value) for key, value in named.items()})

    def attempt(self, invocation: Invocation, performed: Performed, error: Exception, sqlstate: str | None) -> str:
        """An attempt that the database aborted."""
        failed = next((number for number, note in enumerate(performed.notes, 1) if note[3] == "!"), None)
        row = (
            invocation.run,
            int(invocation.step),
            performed.attempt,
            self.number(invocation.function),
            performed.began_us,
            performed.elapsed_us,
            sqlstate,
            str(error).replace("\x00", "\\0"),
            failed,
            statements(performed.notes),
        )
        return f"execute retroact_attempt({','.join(map(literal, row))})"


def statements(notes: Sequence[Note]) -> str | None:
    """The statements of an attempt as the record holds them."""
    return encode_json([_statement(note) for note in notes]).decode() if notes else None


#: Types whose values JSON does not have as they are.
_CODED = frozenset({bytes, float})


def _statement(note: Note) -> list[Any]:
    shape, parameters, count, ordered, unordered = note
    if not _CODED.isdisjoint(map(type, parameters.values())):
        parameters = {name: encode_cell(cell) for name, cell in parameters.items()}
    if ordered is None:
        return [shape.number, parameters, count]
    return [shape.number, parameters, count, ordered] if unordered == ordered else [shape.number, parameters, count, ordered, unordered]


def _told(outcome: Outcome | None) -> tuple[str | None, str | None]:
    if outcome is None:
        return None, None
    return outcome.value, None if outcome.failure is None else encode_json(outcome.failure).decode()
