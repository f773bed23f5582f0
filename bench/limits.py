"""The limit: the smallest hand-written programs with the same durability, on the standard library's sqlite3.

WAL with synchronous=FULL, BEGIN IMMEDIATE, and one more insert in the same transaction: the record that makes it happen once. A
workflow's row rides in its first transaction (the `merge` form) and its end is an update in a transaction of its own. Nothing is
checked, nothing is traced, the past is not kept.

Two forms for many callers: `lock`, one connection behind one lock, and `threads`, a connection for each thread with SQLite's busy
handler. Benchmarks compare against the faster of the two.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

from bench import workload

OWN = (
    "create table if not exists r_wf(id text primary key, name text not null, args text not null, status text not null, "
    "result text, done real) without rowid",
    "create table if not exists r_op(wf text not null, n int not null, result text, primary key(wf, n)) without rowid",
)
INSERT_OP = "insert into r_op values (?, ?, ?)"
INSERT_WF = "insert into r_wf(id, name, args, status) values (?, ?, ?, 'P')"
END_WF = "update r_wf set status = 'S', result = ?, done = ? where id = ? and status = 'P'"
#: Pages in the WAL before it is copied into the database: as many as the platform waits for, so that both sync as often.
CHECKPOINT_PAGES = 4000
FORMS = ("lock", "threads")


class Db:
    """What the plain functions ask for."""

    __slots__ = ("conn",)

    def __init__(self, conn: sqlite3.Connection) -> None:
        self.conn = conn

    def one(self, name: str, **parameters: Any) -> Any:
        """One row, or None."""
        return self.conn.execute(workload.SQL[name], parameters).fetchone()

    def run(self, name: str, **parameters: Any) -> None:
        """One statement."""
        self.conn.execute(workload.SQL[name], parameters)


class Handwritten:
    """See `adapters.base.Adapter`. Options: `form=lock|threads`."""

    def __init__(self, url: str, conc: int = 1, **opts: Any) -> None:
        self.url, self.conc, self.opts = url, conc, opts
        self._path = url.removeprefix("sqlite:///")
        self._local = threading.local()
        self._opened: list[sqlite3.Connection] = []
        self._pool: ThreadPoolExecutor | None = None
        self._recovering: list[Future[Any]] = []
        self._lock: Any = contextlib.nullcontext() if opts.get("form") == "threads" else threading.Lock()

    def setup(self, *, fresh: bool = True) -> None:  # noqa: ARG002 - creates only what is missing
        """Open the database."""
        self._shared = None if self.opts.get("form") == "threads" else self._open()
        for statement in OWN:
            self._connection().execute(statement)

    def close(self) -> None:
        """Close every connection."""
        if self._pool is not None:
            self._pool.shutdown()
        for connection in self._opened:
            connection.close()

    def run_tx(self, key: str, name: str, *args: Any) -> Any:
        """Run one transaction and record its result."""
        with self._transaction() as conn:
            result = workload.TRANSACTIONS[name](Db(conn), *args)
            conn.execute(INSERT_OP, (key, 1, json.dumps(result)))
        return result

    def run_wf(self, key: str, name: str, *args: Any) -> Any:
        """Run a workflow; its row rides in its first transaction."""
        return _Workflow(self._transaction, key, name, args, {}, opened=False).run()

    def start_wf(self, key: str, name: str, *args: Any) -> Future[Any]:
        """Start a workflow: its row is durable before this returns."""
        with self._transaction() as conn:
            conn.execute(INSERT_WF, (key, name, json.dumps(args)))
        return self._executor().submit(_Workflow(self._transaction, key, name, args, {}, opened=True).run)

    def recover(self) -> int:
        """Take up every workflow without an end, with the results that are recorded."""
        conn = self._connection()
        results: dict[str, dict[int, str]] = {}
        for wf, n, result in conn.execute("select o.wf, o.n, o.result from r_op o join r_wf w on w.id = o.wf where w.status = 'P'"):
            results.setdefault(wf, {})[n] = result
        for key, name, args in conn.execute("select id, name, args from r_wf where status = 'P'").fetchall():
            again = _Workflow(self._transaction, key, name, tuple(json.loads(args)), results.get(key, {}), opened=True)
            self._recovering.append(self._executor().submit(again.run))
        return len(self._recovering)

    def drain(self) -> None:
        """Wait for what was taken up."""
        for future in self._recovering:
            future.result()

    def count_done(self) -> int:
        """Workflows that ended."""
        return self._connection().execute("select count(*) from r_wf where status = 'S'").fetchone()[0]

    def _open(self) -> sqlite3.Connection:
        conn = sqlite3.connect(self._path, timeout=60, isolation_level=None, check_same_thread=False)
        conn.execute("pragma journal_mode=wal")
        conn.execute("pragma synchronous=full")
        conn.execute(f"pragma wal_autocheckpoint={CHECKPOINT_PAGES}")
        self._opened.append(conn)
        return conn

    def _connection(self) -> sqlite3.Connection:
        if self._shared is not None:
            return self._shared
        conn = getattr(self._local, "conn", None)
        if conn is None:
            conn = self._local.conn = self._open()
        return conn

    def _executor(self) -> ThreadPoolExecutor:
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self.conc)
        return self._pool

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        conn = self._connection()
        with self._lock:
            conn.execute("begin immediate")
            try:
                yield conn
            except BaseException:
                conn.execute("rollback")
                raise
            conn.execute("commit")


class _Workflow:
    """One workflow: each operation in a transaction with its result; the workflow's row rides in the first."""

    def __init__(
        self, transaction: Callable[[], Any], key: str, name: str, args: tuple[Any, ...], results: dict[int, str], *, opened: bool
    ) -> None:
        self._transaction = transaction
        self._key, self._name, self._args = key, name, args
        self._results = results
        self._opened = opened
        self._count = 0

    def run(self) -> Any:
        fns = SimpleNamespace()
        for name, body in workload.TRANSACTIONS.items():
            setattr(fns, name, lambda *args, body=body: self._operation(body, args, transactional=True))
        for name, body in workload.STEPS.items():
            setattr(fns, name, lambda *args, body=body: self._operation(body, args, transactional=False))
        result = workload.WORKFLOWS[self._name](fns, *self._args)
        with self._transaction() as conn:
            self._begin(conn)
            conn.execute(END_WF, (json.dumps(result), time.time(), self._key))
        return result

    def _operation(self, body: Callable[..., Any], args: tuple[Any, ...], *, transactional: bool) -> Any:
        self._count += 1
        number = self._count
        if number in self._results:
            return json.loads(self._results[number])
        result = None if transactional else body(*args)
        with self._transaction() as conn:
            self._begin(conn)
            if transactional:
                result = body(Db(conn), *args)
            conn.execute(INSERT_OP, (self._key, number, json.dumps(result)))
        return result

    def _begin(self, conn: sqlite3.Connection) -> None:
        if not self._opened:
            conn.execute(INSERT_WF, (self._key, self._name, json.dumps(self._args)))
            self._opened = True
