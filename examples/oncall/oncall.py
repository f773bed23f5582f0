"""Who is on call: a doctor may go off call as long as another one stays. The classic write skew, split over two transactions.

Two doctors who ask at the same moment are both told that two are on call. Each then goes, and nobody is left.
"""

from __future__ import annotations

from retroact import Connection, invariant, transaction, workflow


class LastOnCall(Exception):
    """Nobody else would be on call."""


@transaction
def open_ward(conn: Connection, doctors: list[str]) -> None:
    conn.execute("create table doctors (name text primary key, on_call integer not null)")
    for name in doctors:
        conn.execute("insert into doctors values (:name, 1)", name=name)


@transaction
def count_on_call(conn: Connection) -> int:
    return conn.value("select count(*) from doctors where on_call = 1")


@transaction
def go_off_call(conn: Connection, name: str) -> None:
    conn.execute("update doctors set on_call = 0 where name = :name", name=name)


@workflow
def leave(name: str) -> None:
    # The bug: two transactions, and between them another doctor may leave.
    if count_on_call() <= 1:
        raise LastOnCall(name)
    go_off_call(name)


@invariant
def somebody_on_call(conn: Connection) -> bool:
    return conn.value("select count(*) from doctors where on_call = 1") > 0
