"""Functions that tests of the engine run. In a file of their own, so that their code is recorded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg

from retroact import transaction, workflow


class Hooks:
    """What happens in the middle of a body: the test says, for each attempt."""

    def __init__(self) -> None:
        self.actions: list[Callable[[], object] | None] = []
        self.always: Callable[[], object] | None = None
        self.attempts = 0

    def reset(self, *actions: Callable[[], object] | None, always: Callable[[], object] | None = None) -> None:
        self.actions, self.always, self.attempts = list(actions), always, 0

    def __call__(self) -> None:
        self.attempts += 1
        action = self.actions.pop(0) if self.actions else self.always
        if action is not None:
            action()


HOOKS = Hooks()
#: In the body of a workflow, after its last call.
AFTERWARDS = Hooks()


@transaction
def create(conn: Any) -> None:
    conn.execute("create table counter (name text primary key, n integer not null)")
    conn.execute("create table child (name text references counter deferrable initially deferred)")
    conn.execute("insert into counter values ('a', 0), ('b', 0)")


@transaction
def increment(conn: Any, name: str) -> int:
    n = conn.value("select n from counter where name = :name", name=name)
    HOOKS()
    conn.execute("update counter set n = :n where name = :name", n=n + 1, name=name)
    return n + 1


@transaction(isolation="repeatable read")
def increment_repeatable(conn: Any, name: str) -> int:
    return increment(name)


def _take(conn: Any, name: str) -> bool:
    if conn.value("select sum(n) from counter") < 1:
        return False
    HOOKS()
    conn.execute("update counter set n = n - 1 where name = :name", name=name)
    return True


@transaction
def take(conn: Any, name: str) -> bool:
    """Take one from `name` as long as both together stay above zero: write skew would let both go."""
    return _take(conn, name)


@transaction(isolation="repeatable read")
def take_repeatable(conn: Any, name: str) -> bool:
    return _take(conn, name)


@transaction(isolation="read committed")
def add_committed(conn: Any, n: int) -> int:
    return conn.value("update counter set n = n + :n where name = 'a' returning n", n=n)


@transaction
def withdraw(conn: Any, n: int) -> int:
    """Takes n from `a`, and a fee of one if that leaves less than nothing in both."""
    total = conn.value("select sum(n) from counter")
    HOOKS()
    taken = n + 1 if total - n < 0 else n
    conn.execute("update counter set n = n - :n where name = 'a'", n=taken)
    return taken


@transaction
def deposit(conn: Any, n: int) -> None:
    conn.execute("update counter set n = n + :n where name = 'b'", n=n)


@transaction(read_only=True)
def report(conn: Any) -> list[int]:
    return [conn.value("select n from counter where name = :name", name=name) for name in "ab"]


@transaction(read_only=True)
def sneak(conn: Any) -> None:
    conn.execute("delete from counter")


@transaction
def collides(conn: Any, forgives: bool) -> str:
    conn.execute("insert into counter values ('c', 1)")
    try:
        conn.execute("insert into counter values ('a', 1)")
    except psycopg.errors.UniqueViolation:
        if not forgives:
            raise
    return "forgiven"


@transaction
def orphan(conn: Any) -> None:
    conn.execute("insert into child values ('nobody')")


@transaction
def everything(conn: Any) -> list[Any]:
    return [row.name for row in conn.rows("select * from counter order by name")] + [len(conn.row("select * from counter limit 1"))]


@transaction
def widen(conn: Any) -> None:
    conn.execute("alter table counter add column note text default 'x'")


@workflow
def counts(name: str) -> int:
    n = increment(name)
    AFTERWARDS()
    return n


@transaction
def note_down(conn: Any, who: str) -> int:
    conn.execute("insert into entry values (:who)", who=who)
    return conn.value("select n from constant")


@transaction(read_only=True)
def constant(conn: Any) -> int:
    return conn.value("select n from constant")


@workflow
def notes_down(who: str) -> int:
    note_down(who)
    return constant() + note_down(who)


FUNCTIONS = [
    create, increment, increment_repeatable, take, take_repeatable, add_committed, withdraw, deposit, report, sneak, collides, orphan,
    everything, widen, counts, note_down, constant, notes_down,
]  # fmt: skip
