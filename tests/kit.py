"""What tests of several folders need: an App on a file of its own, a ledger to see effects in, and a world outside of it."""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw

from retroact import App, key, step, transaction
from retroact.testing import ManualClock

#: Where databases come from when they are not files: the `engine` fixture sets it.
databases: Any = None


def database(folder: Path) -> Path | str:
    """The database of a folder, on the engine of the test."""
    return folder / "test.db" if databases is None else databases.url(folder)


class Crash(BaseException):
    """Stands for the end of the process: no body catches it, and nothing more of the run is written."""


class OutOfStock(Exception):
    """What a body of a test fails with."""


@transaction
def create(conn: Any) -> None:
    conn.execute("create table if not exists ledger (entry text)")


@transaction
def write(conn: Any, entry: str) -> int:
    conn.execute("insert into ledger values (:entry)", entry=entry)
    return conn.value("select count(*) from ledger")


@write.compensation
def erase(conn: Any, entry: str) -> None:
    conn.execute("insert into ledger values (:entry)", entry=f"-{entry}")


@transaction
def refuse(conn: Any, entry: str) -> None:
    conn.execute("insert into ledger values (:entry)", entry=entry)
    raise OutOfStock(entry)


@transaction(read_only=True)
def count(conn: Any) -> int:
    return conn.value("select count(*) from ledger")


LEDGER = [create, write, erase, refuse, count]


class Post:
    """The world outside: remembers what was sent to it, and can be asked by key."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, str]] = []
        self.asked: list[str] = []
        #: What sending raises, first to last; None when it goes well.
        self.troubles: list[BaseException | None] = []
        #: Trouble strikes after the letter has gone out.
        self.troubles_after: list[BaseException | None] = []
        self._lock = threading.Lock()

    def send(self, idempotency_key: str, text: str) -> str:
        with self._lock:
            self._strike(self.troubles)
            self.sent.append((idempotency_key, text))
            self._strike(self.troubles_after)
        return f"receipt for {text}"

    def find(self, idempotency_key: str) -> str | None:
        self.asked.append(idempotency_key)
        return next((f"receipt for {text}" for known, text in self.sent if known == idempotency_key), None)

    @property
    def texts(self) -> list[str]:
        return [text for _, text in self.sent]

    def step(self, *, inquiry: bool = True, name: str = "send", **options: Any) -> list[Any]:
        """A step that sends, and what belongs to it."""

        @step(name=name, **options)
        def send(text: str) -> str:
            return self.send(key(), text)

        @send.inquiry
        def find_letter(idempotency_key: str) -> str | None:
            return self.find(idempotency_key)

        return [send, find_letter] if inquiry else [send]

    @staticmethod
    def _strike(troubles: list[BaseException | None]) -> None:
        trouble = troubles.pop(0) if troubles else None
        if trouble is not None:
            raise trouble


@contextlib.contextmanager
def opened(folder: Path, *functions: Any, clock: Any = None, **options: Any) -> Iterator[App]:
    """An App with a ledger, on a clock that jumps."""
    with App(database(folder), *functions, LEDGER, clock=clock or ManualClock(), **options) as app:
        app.run(create, run="create")
        yield app


def entries(app: App) -> list[str]:
    """The ledger, in the order of writing."""
    place = "rowid" if isinstance(app.path, Path) else "ctid"
    return [row[0] for row in sql(app, f"select entry from ledger order by {place}")]


def sql(app: App, text: str) -> list[Any]:
    """Any question to the database, asked from outside."""
    if not isinstance(app.path, Path):
        return app.engine.trace.query(re.sub(r"\bretroact_(\w+)", r"retroact.\1", text))  # pyright: ignore[reportAttributeAccessIssue]
    connection = apsw.Connection(str(app.path), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        return connection.execute(text).fetchall()
    finally:
        connection.close()


def steps(app: App, run: str) -> list[tuple[int, str]]:
    """The recorded calls of a run: number and function, by number."""
    return sorted((int(record.step), record.function) for record in app.trace.records_of(run))  # pyright: ignore[reportArgumentType]
