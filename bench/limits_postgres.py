"""The limit on Postgres: the smallest hand-written programs of the same durability and isolation, on psycopg 3.

SERIALIZABLE, tried again when another was in the way, statements prepared, and one more insert in the same transaction: the record that
makes it happen once. A workflow's row rides in its first transaction (the `merge` form). Nothing is checked, nothing is traced.

Two forms: `plain`, a round trip for each statement, and `pipeline`, psycopg's own pipeline mode. Benchmarks compare against the faster.
"""

from __future__ import annotations

import contextlib
import json
import queue
import re
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import psycopg
from psycopg import errors

from bench import workload

FORMS = ("plain", "pipeline")
SQL = {name: re.sub(r":(\w+)", r"%(\1)s", sql) for name, sql in workload.SQL.items()}
OWN = (
    "create table if not exists r_wf(id text primary key, name text not null, args text not null, status text not null, "
    "result text, done timestamptz)",
    "create table if not exists r_op(wf text not null, n int not null, result text, primary key(wf, n))",
)
INSERT_OP = "insert into r_op values (%s, %s, %s)"
INSERT_WF = "insert into r_wf(id, name, args, status) values (%s, %s, %s, 'P')"
INSERT_ENDED = "insert into r_wf(id, name, args, status, result, done) values (%s, %s, %s, 'S', %s, now())"
END_WF = "update r_wf set status = 'S', result = %s, done = clock_timestamp() where id = %s and status = 'P'"
RETRIED = (errors.SerializationFailure, errors.DeadlockDetected)
CONNECTIONS = 32


class Db:
    """What the plain functions ask for."""

    __slots__ = ("conn",)

    def __init__(self, conn: psycopg.Connection[Any]) -> None:
        self.conn = conn

    def one(self, name: str, **parameters: Any) -> Any:
        """One row, or None."""
        return self.conn.execute(SQL[name], parameters, prepare=True).fetchone()

    def run(self, name: str, **parameters: Any) -> None:
        """One statement."""
        self.conn.execute(SQL[name], parameters, prepare=True)


class Handwritten:
    """See `adapters.base.Adapter`. Options: `form=plain|pipeline`."""

    def __init__(self, url: str, conc: int = 1, **opts: Any) -> None:
        self.url, self.conc = url, conc
        self._pipelined = opts.get("form") == "pipeline"
        self.retries = 0
        self._free: queue.LifoQueue[psycopg.Connection[Any]] = queue.LifoQueue()
        self._opened: list[psycopg.Connection[Any]] = []
        self._pool: ThreadPoolExecutor | None = None
        self._recovering: list[Future[Any]] = []

    def setup(self, *, fresh: bool = True) -> None:  # noqa: ARG002 - creates only what is missing
        """Open the database."""
        for _ in range(min(self.conc, CONNECTIONS)):
            conn = psycopg.connect(self.url, autocommit=True)
            conn.isolation_level = psycopg.IsolationLevel.SERIALIZABLE
            self._opened.append(conn)
            self._free.put(conn)
        for statement in OWN:
            self._opened[0].execute(statement.encode())

    def close(self) -> None:
        """Close every connection."""
        if self._pool is not None:
            self._pool.shutdown()
        for conn in self._opened:
            conn.close()

    @contextlib.contextmanager
    def connection(self) -> Iterator[psycopg.Connection[Any]]:
        """A connection for a while."""
        conn = self._free.get()
        try:
            yield conn
        finally:
            self._free.put(conn)

    def transaction(self, work: Callable[[psycopg.Connection[Any]], Any]) -> Any:
        """Do work in a transaction, until nobody is in the way."""
        while True:
            try:
                with self.connection() as conn:
                    if self._pipelined:
                        with conn.pipeline(), conn.transaction():
                            return work(conn)
                    with conn.transaction():
                        return work(conn)
            except RETRIED:
                self.retries += 1

    def run_tx(self, key: str, name: str, *args: Any) -> Any:
        """Run one transaction and record its result."""

        def work(conn: psycopg.Connection[Any]) -> Any:
            result = workload.TRANSACTIONS[name](Db(conn), *args)
            conn.execute(INSERT_OP, (key, 1, json.dumps(result)), prepare=True)
            return result

        return self.transaction(work)

    def run_wf(self, key: str, name: str, *args: Any) -> Any:
        """Run a workflow; its row rides in its first transaction."""
        return _Workflow(self, key, name, args, {}, opened=False).run()

    def start_wf(self, key: str, name: str, *args: Any) -> Future[Any]:
        """Start a workflow: its row is durable before this returns."""
        with self.connection() as conn:
            conn.execute(INSERT_WF, (key, name, json.dumps(args)), prepare=True)
        return self._executor().submit(_Workflow(self, key, name, args, {}, opened=True).run)

    def recover(self) -> int:
        """Take up every workflow without an end, with the results that are recorded."""
        results: dict[str, dict[int, str]] = {}
        with self.connection() as conn:
            found = conn.execute("select o.wf, o.n, o.result from r_op o join r_wf w on w.id = o.wf where w.status = 'P'")
            for wf, n, result in found:
                results.setdefault(wf, {})[n] = result
            left = conn.execute("select id, name, args from r_wf where status = 'P'").fetchall()
        for key, name, args in left:
            again = _Workflow(self, key, name, tuple(json.loads(args)), results.get(key, {}), opened=True)
            self._recovering.append(self._executor().submit(again.run))
        return len(self._recovering)

    def drain(self) -> None:
        """Wait for what was taken up."""
        for future in self._recovering:
            future.result()

    def count_done(self) -> int:
        """Workflows that ended."""
        with self.connection() as conn:
            row = conn.execute("select count(*) from r_wf where status = 'S'").fetchone()
        return row[0] if row else 0

    def _executor(self) -> ThreadPoolExecutor:
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self.conc)
        return self._pool


class _Workflow:
    """One workflow: each operation in a transaction with its result; what is one statement needs no BEGIN and COMMIT."""

    def __init__(self, system: Handwritten, key: str, name: str, args: tuple[Any, ...], results: dict[int, str], *, opened: bool) -> None:
        self._system = system
        self._key, self._name, self._args = key, name, args
        self._results = results
        self._opened = opened
        self._count = 0

    def run(self) -> Any:
        fns = SimpleNamespace()
        for name, body in workload.TRANSACTIONS.items():
            setattr(fns, name, lambda *args, body=body: self._transaction(body, args))
        for name, body in workload.STEPS.items():
            setattr(fns, name, lambda *args, body=body: self._step(body, args))
        result = workload.WORKFLOWS[self._name](fns, *self._args)
        with self._system.connection() as conn:
            if self._opened:
                conn.execute(END_WF, (json.dumps(result), self._key), prepare=True)
            else:
                conn.execute(INSERT_ENDED, (self._key, self._name, json.dumps(self._args), json.dumps(result)), prepare=True)
        return result

    def _transaction(self, body: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        self._count += 1
        number = self._count
        if number in self._results:
            return json.loads(self._results[number])

        def work(conn: psycopg.Connection[Any]) -> Any:
            self._begin(conn)
            result = body(Db(conn), *args)
            conn.execute(INSERT_OP, (self._key, number, json.dumps(result)), prepare=True)
            return result

        result = self._system.transaction(work)
        self._opened = True
        return result

    def _step(self, body: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        self._count += 1
        if self._count in self._results:
            return json.loads(self._results[self._count])
        result = body(*args)
        row = (self._key, self._count, json.dumps(result))
        with self._system.connection() as conn:
            if self._opened:
                conn.execute(INSERT_OP, row, prepare=True)
            else:
                with conn.transaction():
                    self._begin(conn)
                    conn.execute(INSERT_OP, row, prepare=True)
        self._opened = True
        return result

    def _begin(self, conn: psycopg.Connection[Any]) -> None:
        if not self._opened:
            conn.execute(INSERT_WF, (self._key, self._name, json.dumps(self._args)), prepare=True)
