"""Who is on call, with the bug fixed: whether another doctor stays is asked in the transaction that lets this one go."""

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
def go_off_call_unless_last(conn: Connection, name: str) -> None:
    # The fix: one transaction.
    if conn.value("select count(*) from doctors where on_call = 1") <= 1:
        raise LastOnCall(name)
    conn.execute("update doctors set on_call = 0 where name = :name", name=name)


@workflow
def leave(name: str) -> None:
    go_off_call_unless_last(name)


@invariant
def somebody_on_call(conn: Connection) -> bool:
    return conn.value("select count(*) from doctors where on_call = 1") > 0
