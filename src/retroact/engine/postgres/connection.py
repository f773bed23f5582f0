"""The connection that a body is given on Postgres: it runs SQL, and notes every statement.

The transaction begins with the first statement, in the same round trip. A statement that Postgres refuses ends the transaction: what
the body does about it is its own affair, but every further statement raises the same error, and nothing is committed.

This module must not know how a transaction ends, nor where its record goes.
"""

from __future__ import annotations

import collections
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import psycopg

from retroact.engine.postgres.literal import PLAIN, all_plain, literal
from retroact.engine.postgres.session import Prepared, Session
from retroact.engine.postgres.shape import Shape
from retroact.errors import BadStatement, EngineFault, ReadOnlyTransaction
from retroact.trace.codec import digest_rows
from retroact.trace.failure import describe
from retroact.trace.record import Cell, Failure

#: One statement as it is noted: shape, parameters, count, ordered and unordered digest.
Note = tuple[Shape, Mapping[str, Cell], int, str | None, str | None]
#: SQLSTATEs by which Postgres says that the text is wrong, not the data: syntax, unknown names, types that do not fit.
_BAD_TEXT = ("42",)
_NOT_ALLOWED = "42501"
_READ_ONLY = "25006"
_UNDETERMINED = frozenset({"42P18", "42725"})


class StatementObserver(Protocol):
    """Is shown each statement before it takes effect; may raise to stop it."""

    def __call__(self, number: int, shape: Shape, parameters: Mapping[str, Cell], /) -> None: ...


class Moment:
    """Clock and randomness of the invocation that runs on a connection."""

    __slots__ = ("_random", "now_us", "seed")

    def __init__(self, now_us: int, seed: str) -> None:
        self.now_us = now_us
        self.seed = seed
        self._random: random.Random | None = None

    def random(self) -> random.Random:
        """The invocation's generator, made when first asked for."""
        if self._random is None:
            self._random = random.Random(self.seed)
        return self._random


class PostgresConnection:
    """See `retroact.Connection` for what a body may call. One for each attempt; not safe for use by two threads at once."""

    def __init__(self, session: Session, function: str, begin: bytes, moment: Moment, shape_of: Callable[[str, str, int], Shape]) -> None:
        self.session = session
        self.function = function
        self.moment = moment
        self.notes: list[Note] = []
        #: What the first flight begins with.
        self._begin = begin
        self._shape_of = shape_of
        self.observer: StatementObserver | None = None
        #: The error by which the transaction was lost, if it was.
        self.lost: psycopg.Error | None = None
        #: The platform failed in the middle of the body: that is no outcome of it.
        self.fault: EngineFault | None = None
        self._ended = False

    @property
    def begun(self) -> bool:
        """Whether a statement was sent."""
        return not self._begin

    def finish(self) -> None:
        """The body has ended. Raises the error that has ended its transaction if the body went on after that."""
        if self.lost is not None:
            raise self.lost

    def end(self) -> None:
        """The connection is the body's no more."""
        self._ended = True

    def describe(self, error: Exception) -> Failure:
        """The failure of the body, with the statement that the database refused if it was that."""
        if not isinstance(error, psycopg.Error):
            return describe(error)
        return describe(error, statement=len(self.notes) or None, sqlstate=error.sqlstate)

    def execute(self, sql: str, parameters: Mapping[str, Cell] | None = None, /, **named: Cell) -> int:
        """Run one statement and return the number of rows it changed."""
        self._run(sql, named if parameters is None else dict(parameters))
        return self.notes[-1][2]

    def rows(self, sql: str, parameters: Mapping[str, Cell] | None = None, /, **named: Cell) -> list[Any]:
        """Run one statement and return all its rows."""
        found, row = self._run(sql, named if parameters is None else dict(parameters))
        return list(map(row, found))

    def row(self, sql: str, parameters: Mapping[str, Cell] | None = None, /, **named: Cell) -> Any:
        """Run one statement and return its first row, or None."""
        found, row = self._run(sql, named if parameters is None else dict(parameters))
        return row(found[0]) if found else None

    def value(self, sql: str, parameters: Mapping[str, Cell] | None = None, /, **named: Cell) -> Any:
        """Run one statement and return the first column of its first row, or None."""
        found, _ = self._run(sql, named if parameters is None else dict(parameters))
        return found[0][0] if found else None

    def _run(self, sql: str, parameters: dict[str, Any]) -> tuple[list[Any], Callable[[Any], Any]]:
        if self._ended:
            raise self._bad(sql, "the transaction has ended; its connection is not to be kept")
        try:
            shape = self._shape_of(sql, self.function, len(self.notes) + 1)
        except EngineFault as fault:
            self.fault = fault
            raise
        try:
            if not PLAIN.issuperset(map(type, parameters.values())):
                parameters = all_plain(parameters)
            literals = {name: literal(parameters[name]) for name in shape.names}
            prepared, text = self._text(shape, parameters, literals)
        except (KeyError, TypeError, ValueError) as error:
            problem = f"{error.args[0]} is missing" if isinstance(error, KeyError) else str(error)
            raise self._bad(sql, f"its parameters do not fit: {problem}") from None
        if self.observer is not None:
            self.observer(len(self.notes) + 1, shape, parameters)
        return self._send(shape, parameters, prepared, text)

    def _text(self, shape: Shape, parameters: dict[str, Cell], literals: dict[str, str]) -> tuple[Prepared | None, bytes]:
        """How a statement is sent: by the name that it is prepared under, or as it is."""
        if self.lost is not None:
            raise self.lost
        if shape.numbered is None:
            return None, shape.scanned.filled(literals).encode()
        try:
            prepared = self.session.prepared(shape, parameters)
        except psycopg.Error as error:
            raise self._refused(shape, parameters, error) from error
        if not literals:
            return prepared, prepared.call
        return prepared, prepared.call + f"({','.join(literals.values())})".encode()

    def _send(
        self, shape: Shape, parameters: dict[str, Cell], prepared: Prepared | None, text: bytes
    ) -> tuple[list[Any], Callable[[Any], Any]]:
        begin, self._begin = self._begin, b""
        try:
            result = self.session.flight(begin + text)
        except psycopg.Error as error:
            raise self._refused(shape, parameters, error) from error
        if not result.nfields:
            self.notes.append((shape, parameters, result.command_tuples or 0, None, None))
            return [], tuple
        found = self.session.loaded(result, tuple)
        row = prepared.row if prepared is not None else None
        if row is None:
            row = _row_maker([(result.fname(i) or b"").decode() for i in range(result.nfields)])
            if prepared is not None:
                prepared.row = row
        ordered, unordered = _digests(found)
        self.notes.append((shape, parameters, len(found), ordered, unordered))
        return found, row

    def _refused(self, shape: Shape, parameters: dict[str, Cell], error: psycopg.Error) -> Exception:
        """What the body is told of a statement that Postgres refused. The transaction, if it has begun, can only be rolled back."""
        self.notes.append((shape, parameters, 0, "!", "!"))
        if self.session.broken or self.session.failed or self.begun:
            self.lost = error
        state = error.sqlstate or ""
        if state == _READ_ONLY:
            return ReadOnlyTransaction(function=self.function, sql=shape.sql)
        if state.startswith(_BAD_TEXT) and state != _NOT_ALLOWED:
            self.notes.pop()
            more = "; say what the parameter is: :name::text" if state in _UNDETERMINED else ""
            return self._bad(shape.sql, f"{str(error).splitlines()[0]}{more}")
        return error

    def _bad(self, sql: object, problem: str) -> BadStatement:
        return BadStatement(function=self.function, statement=len(self.notes) + 1, problem=problem, sql=sql)


def _digests(found: Sequence[tuple[Any, ...]]) -> tuple[str, str]:
    try:
        return digest_rows(found)
    except (TypeError, ValueError, OverflowError):  # ranges, addresses, ...: by how they are written
        return digest_rows([tuple([cell if type(cell) in PLAIN else repr(cell) for cell in row]) for row in found])


def _row_maker(columns: list[str]) -> Callable[[Any], Any]:
    row = collections.namedtuple("Row", columns, rename=True)  # pyright: ignore[reportUntypedNamedTuple] - the fields are not known before
    return row._make
