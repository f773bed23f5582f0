"""The application that is killed: orders that write to a ledger, call the outside world, fail, and are compensated.

The world outside is a file that is only appended to, a line for each effect. It is asked by idempotency key.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from retroact import gather_async, key, rng, step, transaction, workflow

WORLD = "RETROACT_CRASH_WORLD"
STOCK = 1_000_000


class Declined(Exception):
    """The order that fails after everything was paid for."""


def tell(what: str, order: str) -> str:
    """An effect on the outside world: once the line is written, it has happened."""
    line = f"{key()} {what} {order}\n"
    descriptor = os.open(os.environ[WORLD], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, line.encode())
    os.fsync(descriptor)
    os.close(descriptor)
    return f"{what} {order}"


def asked(idempotency_key: str) -> str | None:
    path = Path(os.environ[WORLD])
    lines = path.read_text().splitlines() if path.exists() else []
    return next((line.partition(" ")[2] for line in lines if line.startswith(f"{idempotency_key} ")), None)


@transaction
def create(conn: Any) -> None:
    conn.execute("create table ledger (what text, for_order text, at text default current_timestamp, luck integer)")
    conn.execute("create table stock (item text primary key, left integer)")
    conn.execute("insert into stock values ('apple', :stock)", stock=STOCK)


def enter(conn: Any, what: str, order: str) -> None:
    conn.execute(
        "insert into ledger (what, for_order, luck) values (:what, :order, :luck)", what=what, order=order, luck=rng().randrange(100)
    )


@transaction
def reserve(conn: Any, order: str) -> int:
    enter(conn, "reserve", order)
    conn.execute("update stock set left = left - 1 where item = 'apple'")
    return conn.value("select left from stock where item = 'apple'")


@reserve.compensation
def release(conn: Any, order: str) -> None:
    enter(conn, "release", order)
    conn.execute("update stock set left = left + 1 where item = 'apple'")


@transaction(read_only=True)
def look(conn: Any) -> int:
    return conn.value("select count(*) from ledger")


@step(retries=1, backoff=0.001)
def charge(order: str, seen: int) -> str:
    return tell(f"charge-{seen}", order)


@charge.inquiry
def find_charge(idempotency_key: str) -> str | None:
    return asked(idempotency_key)


@charge.compensation
def refund(order: str, seen: int) -> str:
    return tell("refund", order)


@refund.inquiry
def find_refund(idempotency_key: str) -> str | None:
    return asked(idempotency_key)


@step
def notify(order: str) -> str:
    return tell("notify", order)


@transaction
def fulfil(conn: Any, order: str) -> str:
    enter(conn, "fulfil", order)
    return order


@workflow
def buy(order: str, fails: bool) -> str:
    reserve(order)
    charge(order, look())
    if fails:
        raise Declined(order)
    notify(order)
    return fulfil(order)


@workflow
async def buy_at_once(order: str, fails: bool) -> str:
    await reserve(order)
    await gather_async(charge(order, 0), notify(order))
    if fails:
        raise Declined(order)
    return await fulfil(order)


@workflow
def buy_twice(order: str, fails: bool) -> str:
    """A child workflow within a workflow, which fails after the child has."""
    return buy(order, fails)


@transaction
def pair(conn: Any, key: str) -> None:
    """Two rows that must come together."""
    conn.execute("insert into ledger (what, for_order) values ('first', :key)", key=key)
    conn.execute("insert into ledger (what, for_order) values ('second', :key)", key=key)
