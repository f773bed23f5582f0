"""The business side of every benchmark: schema, SQL, and plain Python functions.

Nothing here knows which system runs it. A function that touches the database takes `db` first and uses only
`db.one(name, **parameters)`, which gives a row or None, and `db.run(name, **parameters)`. Adapters turn these functions into what
their system calls a transaction, a step or a workflow; a workflow is given `fns`, which holds the functions it calls.
"""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path
from typing import Any

ACCOUNTS, ITEMS = 10_000, 10_000
BALANCE, STOCK = 1000, 1_000_000

DDL = (
    "create table acct(id integer primary key, bal bigint not null, n bigint not null)",
    "create table item(id integer primary key, stock bigint not null)",
    "create table orders(id text primary key, item bigint not null, acct bigint not null)",
    # Deliberately without a unique key: what is written twice is there twice.
    "create table ledger(wf text not null, step integer not null, worker text not null)",
)
_COUNT = "with recursive s(g) as (select 1 union all select g+1 from s where g<{}) "
SEED = (
    _COUNT.format(ACCOUNTS) + f"insert into acct select g, {BALANCE}, 0 from s",
    _COUNT.format(ITEMS) + f"insert into item select g, {STOCK} from s",
)
SQL = {
    "acct_get": "select bal from acct where id = :i",
    "acct_set": "update acct set bal = :b, n = n + 1 where id = :i",
    "item_get": "select stock from item where id = :i",
    "item_set": "update item set stock = :s where id = :i",
    "order_put": "insert into orders(id, item, acct) values (:o, :i, :a)",
    "ledger_put": "insert into ledger(wf, step, worker) values (:w, :s, :p)",
}


def bump(db: Any, acct: int) -> int:
    """W1: read one row, update it."""
    bal = db.one("acct_get", i=acct)[0]
    db.run("acct_set", i=acct, b=bal + 1)
    return bal + 1


def reserve(db: Any, item: int, k: int) -> int:
    """W2, 1 of 3."""
    stock = db.one("item_get", i=item)[0]
    if stock < k:
        message = "out of stock"
        raise ValueError(message)
    db.run("item_set", i=item, s=stock - k)
    return stock - k


def charge(db: Any, acct: int, amount: int) -> int:
    """W2, 2 of 3."""
    bal = db.one("acct_get", i=acct)[0]
    db.run("acct_set", i=acct, b=bal - amount)
    return bal - amount


def fulfil(db: Any, order: str, item: int, acct: int) -> str:
    """W2, 3 of 3."""
    db.run("order_put", o=order, i=item, a=acct)
    return order


def write_ledger(db: Any, wf: str, number: int, worker: str) -> int:
    """W6, three times."""
    db.run("ledger_put", w=wf, s=number, p=worker)
    return number


def noop(i: int) -> int:
    """W3: a step that does nothing."""
    return i


def pause(ms: int) -> int:
    """W6: a step that takes time."""
    time.sleep(ms / 1000)
    return ms


def checkout(fns: Any, order: str, item: int, acct: int) -> str:
    """W2: three transactions."""
    fns.reserve(item, 1)
    fns.charge(acct, 1)
    return fns.fulfil(order, item, acct)


def five_steps(fns: Any, i: int) -> int:
    """W3: five steps."""
    for k in range(5):
        fns.noop(k)
    return i


def trivial(fns: Any, i: int) -> int:  # noqa: ARG001 - it calls nothing
    """W5: nothing, durably."""
    return i


def recoverable(fns: Any, wf: str, worker: str, ms: int) -> int:
    """W6: three transactions with two pauses between."""
    fns.write_ledger(wf, 1, worker)
    fns.pause(ms)
    fns.write_ledger(wf, 2, worker)
    fns.pause(ms)
    return fns.write_ledger(wf, 3, worker)


TRANSACTIONS = {f.__name__: f for f in (bump, reserve, charge, fulfil, write_ledger)}
STEPS = {f.__name__: f for f in (noop, pause)}
WORKFLOWS = {f.__name__: f for f in (checkout, five_steps, trivial, recoverable)}


def create(path: Path) -> None:
    """A fresh database with the schema and the seed rows, in WAL mode."""
    database = sqlite3.connect(path)
    database.execute("pragma journal_mode=wal")
    for statement in DDL + SEED:
        database.execute(statement)
    database.commit()
    database.close()


def ask(path: Path | str, sql: str) -> Any:
    """The first row that a query gives, on a connection of its own."""
    if isinstance(path, str):
        from bench.server import ask as ask_server  # noqa: PLC0415 - its driver is an extra

        return ask_server(path, sql)
    database = sqlite3.connect(path, timeout=30)
    try:
        return database.execute(sql).fetchone()
    finally:
        database.close()
