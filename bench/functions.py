"""The functions of `workload.py` as Retroact functions: the same bodies, declared as transactions, steps and workflows."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from bench import workload
from retroact import step, transaction, workflow


class Db:
    """What the plain functions ask for, on the connection that the platform supplies."""

    __slots__ = ("conn",)

    def __init__(self, conn: Any) -> None:
        self.conn = conn

    def one(self, name: str, **parameters: Any) -> Any:
        """One row, or None."""
        return self.conn.row(workload.SQL[name], parameters)

    def run(self, name: str, **parameters: Any) -> None:
        """One statement."""
        self.conn.execute(workload.SQL[name], parameters)


@transaction
def bump(conn: Any, acct: int) -> int:
    """W1."""
    return workload.bump(Db(conn), acct)


@transaction
def reserve(conn: Any, item: int, k: int) -> int:
    """W2, 1 of 3."""
    return workload.reserve(Db(conn), item, k)


@transaction
def charge(conn: Any, acct: int, amount: int) -> int:
    """W2, 2 of 3."""
    return workload.charge(Db(conn), acct, amount)


@transaction
def fulfil(conn: Any, order: str, item: int, acct: int) -> str:
    """W2, 3 of 3."""
    return workload.fulfil(Db(conn), order, item, acct)


@transaction
def write_ledger(conn: Any, wf: str, number: int, worker: str) -> int:
    """W6."""
    return workload.write_ledger(Db(conn), wf, number, worker)


@step
def noop(i: int) -> int:
    """W3."""
    return workload.noop(i)


@step
def pause(ms: int) -> int:
    """W6."""
    return workload.pause(ms)


#: What the workflows call.
FNS = SimpleNamespace(reserve=reserve, charge=charge, fulfil=fulfil, write_ledger=write_ledger, noop=noop, pause=pause)


@workflow
def checkout(order: str, item: int, acct: int) -> str:
    """W2."""
    return workload.checkout(FNS, order, item, acct)


@workflow
def five_steps(i: int) -> int:
    """W3."""
    return workload.five_steps(FNS, i)


@workflow
def trivial(i: int) -> int:
    """W5."""
    return workload.trivial(None, i)


@workflow
def recoverable(wf: str, worker: str, ms: int) -> int:
    """W6."""
    return workload.recoverable(FNS, wf, worker, ms)


ALL = {f.name: f for f in (bump, reserve, charge, fulfil, write_ledger, noop, pause, checkout, five_steps, trivial, recoverable)}
