"""One connection to a Postgres server, driven by hand: texts are sent in *flights*, several statements to a round trip.

A flight is a query string of the simple protocol: "begin ...; execute s1(7)" or "execute retroact_record(...); commit". Statements are
prepared by the extended protocol, once on each connection, and executed by name, so they are planned once and cost one round trip less
than by any driver's own way. Only the answer of the last statement of a flight comes back.

Invariant: nothing is begun, committed or rolled back that a flight does not say.

This module must not know what a flight is for.
"""

from __future__ import annotations

import collections
import select
from collections.abc import Callable
from typing import Any

import psycopg
from psycopg import errors, pq
from psycopg.adapt import Transformer

from retroact.engine.clock import monotonic
from retroact.engine.postgres.literal import type_number
from retroact.engine.postgres.queries import queries
from retroact.engine.postgres.shape import Shape
from retroact.trace.record import Cell

_GOOD = frozenset({pq.ExecStatus.COMMAND_OK, pq.ExecStatus.TUPLES_OK, pq.ExecStatus.EMPTY_QUERY})
_COPYING = frozenset({pq.ExecStatus.COPY_IN, pq.ExecStatus.COPY_OUT, pq.ExecStatus.COPY_BOTH})
#: How long a server may take to let us in (seconds).
CONNECT_SECONDS = 20
#: Statements that a connection keeps prepared.
_PREPARED = 500
#: What is prepared no longer fits the schema, or somebody has dropped it: forget it and try again.
STALE = frozenset({"0A000", "26000"})


class Prepared:
    """A statement that a connection has prepared, and how rows are made of its results."""

    __slots__ = ("call", "name", "row")

    def __init__(self, name: bytes) -> None:
        self.name = name
        self.call = b"execute " + name
        self.row: Callable[[Any], Any] | None = None


class Session:
    """One connection. For one thread at a time."""

    def __init__(self, address: str) -> None:
        """Connect. Raises psycopg.OperationalError."""
        self._raw = _connected(address)
        self._prepared: collections.OrderedDict[tuple[str, tuple[int, ...]], Prepared] = collections.OrderedDict()
        self._names = 0
        #: libpq does not always know at once that a connection is lost: what has no SQLSTATE did not come from the server.
        self._gone = False
        self._reader = Transformer(None)
        try:
            self._raw.exec_(b"set client_encoding to 'UTF8'")
            self.flight(queries()["settings"].encode())
        except BaseException:
            self._raw.finish()
            raise

    def prepare_own(self) -> None:
        """Prepare the platform's statements. The schema is there."""
        self.flight(";".join(sql for name, sql in queries().items() if name.startswith("retroact_")).encode())

    @property
    def broken(self) -> bool:
        """Whether the connection is lost."""
        return self._gone or self._raw.status != pq.ConnStatus.OK

    @property
    def idle(self) -> bool:
        """Whether no transaction is open."""
        return self._raw.transaction_status == pq.TransactionStatus.IDLE

    @property
    def failed(self) -> bool:
        """Whether a transaction is open in which nothing more can be done."""
        return self._raw.transaction_status == pq.TransactionStatus.INERROR

    def flight(self, sql: bytes) -> pq.abc.PGresult:
        """Send a flight and wait for its answer, the last one. Raises psycopg.Error."""
        result = self._raw.exec_(sql)
        if result.status in _GOOD:
            return result
        if result.status in _COPYING:
            self.close()
            raise psycopg.ProgrammingError("COPY is not possible here")
        raise self._error(result)

    def _error(self, result: pq.abc.PGresult) -> psycopg.Error:
        error = errors.error_from_result(result)
        self._gone = self._gone or error.sqlstate is None
        return error

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """The rows of the last statement of a flight."""
        return self.loaded(self.flight(sql.encode()), tuple)

    def loaded(self, result: pq.abc.PGresult, row: Callable[[Any], Any]) -> list[Any]:
        """The rows of an answer as Python's values."""
        self._reader.set_pgresult(result)
        return self._reader.load_rows(0, result.ntuples, row)

    def prepared(self, shape: Shape, parameters: dict[str, Cell]) -> Prepared:
        """The statement for parameters of these types, prepared now if it has not been. Raises psycopg.Error, KeyError."""
        types = tuple([type_number(parameters[name]) for name in shape.names])
        key = (shape.sql, types)
        found = self._prepared.get(key)
        if found is None:
            found = self._prepare(shape, types)
            self._prepared[key] = found
            if len(self._prepared) > _PREPARED:
                _, oldest = self._prepared.popitem(last=False)
                self.flight(b"deallocate " + oldest.name)
        return found

    def _prepare(self, shape: Shape, types: tuple[int, ...]) -> Prepared:
        assert shape.numbered is not None, "only what can be prepared comes here"
        self._names += 1
        name = f"s{self._names}".encode()
        result = self._raw.prepare(name, shape.numbered.encode(), types)
        if result.status not in _GOOD:
            raise self._error(result)
        return Prepared(name)

    def forget(self) -> None:
        """Forget what is prepared: the schema is another now. Outside of a transaction."""
        self._prepared.clear()
        self.flight(b"deallocate all")
        self.prepare_own()

    def rollback(self) -> None:
        """Leave the transaction, if one is open. A connection that cannot is closed."""
        if self.broken:
            return
        try:
            if not self.idle:
                self.flight(b"rollback")
        except psycopg.Error:
            self.close()

    def close(self) -> None:
        """Let the connection go."""
        self._raw.finish()


def _connected(address: str) -> pq.abc.PGconn:
    """A connection, made step by step: the blocking call would hold Python's lock until the server answers. Raises
    psycopg.OperationalError."""
    raw = pq.PGconn.connect_start(address.encode())
    deadline = monotonic() + CONNECT_SECONDS
    state = raw.connect_poll() if raw.status != pq.ConnStatus.BAD else pq.PollingStatus.FAILED
    while state in (pq.PollingStatus.READING, pq.PollingStatus.WRITING):
        waiting = select.poll()
        waiting.register(raw.socket, select.POLLIN if state == pq.PollingStatus.READING else select.POLLOUT)
        if not waiting.poll(max(deadline - monotonic(), 0) * 1000):
            raw.finish()
            raise psycopg.OperationalError(f"no answer within {CONNECT_SECONDS} s")
        state = raw.connect_poll()
    if state != pq.PollingStatus.OK:
        problem = raw.error_message.decode("utf-8", "replace").strip()
        raw.finish()
        raise psycopg.OperationalError(problem)
    raw.nonblocking = 0
    return raw
