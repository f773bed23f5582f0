"""The functions whose runs are exported: a few lookups and changes in tables that may be large."""

from __future__ import annotations

from typing import Any

from retroact import transaction, workflow


@transaction
def customer(conn: Any, email: str) -> int:
    """Find a row through an index."""
    return conn.value("select id from customers where email = :email", email=email)


@transaction
def balance(conn: Any, number: int) -> int:
    """Find a row by its key."""
    return conn.value("select balance from customers where id = :number", number=number)


@transaction
def order(conn: Any, number: int, cents: int) -> int:
    """Change one row and add one."""
    conn.execute("update customers set balance = balance - :cents where id = :number", cents=cents, number=number)
    conn.execute("insert into orders (customer, cents, note) values (:number, :cents, hex(randomblob(20)))", number=number, cents=cents)
    return conn.value("select count(*) from orders where customer = :number", number=number)


@workflow
def buy(email: str, cents: int) -> int:
    """Three transactions."""
    number = customer(email)
    if balance(number) < cents:
        return 0
    return order(number, cents)
