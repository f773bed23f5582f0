"""An application with something planted in it: a body that computes with what no record has."""

from __future__ import annotations

import itertools
from typing import Any

from retroact import rng, transaction

COUNTER = itertools.count(1)


@transaction
def create(conn: Any) -> None:
    conn.execute("create table account (id integer primary key, name text, balance integer)")
    conn.execute("insert into account values (1, 'ada', 100), (2, 'bob', 100)")


@transaction
def pay(conn: Any, n: int) -> int:
    """Moves money."""
    conn.execute("update account set balance = balance - :n where id = 1", n=n)
    conn.execute("update account set balance = balance + :n where id = 2", n=n)
    return conn.value("select sum(balance) from account")


@transaction
def draw(conn: Any) -> int:
    conn.execute("update account set balance = balance + :n where id = 1", n=rng().randrange(10))
    return conn.value("select balance from account where id = 1")


@transaction
def refuse(conn: Any) -> None:
    conn.execute("update account set balance = 0")
    conn.execute("insert into account (id) values (1)")


@transaction
def count_on_a_global(conn: Any) -> int:
    """The second statement has a number that comes from the module."""
    found = conn.value("select count(*) from account")
    conn.execute("update account set name = :name where id = 1", name=f"ada {next(COUNTER)}")
    return found


@transaction
def branch_on_a_global(conn: Any) -> None:
    """Takes another path every other time."""
    conn.execute("update account set balance = balance + 1 where id = 2")
    if next(COUNTER) % 2:
        conn.execute("update account set balance = balance - 1 where id = 2")


@transaction
def return_a_global(conn: Any) -> int:
    conn.value("select 1")
    return next(COUNTER)
