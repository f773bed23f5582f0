"""The Postgres server of a benchmark: one of its own with its default durability, and a database for each side.

RETROACT_BENCH_POSTGRES names another: an address that may create databases.
"""

from __future__ import annotations

import contextlib
import decimal
import os
from collections.abc import Iterator
from typing import Any

from bench import workload
from retroact.testing.postgres import PostgresServer

VARIABLE = "RETROACT_BENCH_POSTGRES"


class Databases:
    """Fresh databases with the business schema and the seed rows."""

    def __init__(self, address: str) -> None:
        self._address = address

    def make(self, name: str) -> str:
        """The address of a fresh database."""
        import psycopg  # noqa: PLC0415 - an extra: benchmarks of SQLite do without
        from psycopg.conninfo import conninfo_to_dict, make_conninfo  # noqa: PLC0415

        with psycopg.connect(self._address, autocommit=True) as conn:
            conn.execute(f"drop database if exists {name} with (force)".encode())
            conn.execute(f"create database {name} template template0".encode())
        info = conninfo_to_dict(make_conninfo(self._address, dbname=name))
        url = "postgresql:///?" + "&".join(f"{key}={value}" for key, value in info.items())
        with psycopg.connect(url) as conn:
            for statement in workload.DDL + workload.SEED:
                conn.execute(statement.encode())
        with psycopg.connect(url, autocommit=True) as conn:
            conn.execute("vacuum analyze")
        return url


@contextlib.contextmanager
def databases() -> Iterator[Databases]:
    """A server for a while."""
    given = os.environ.get(VARIABLE)
    if given:
        yield Databases(given)
        return
    with PostgresServer() as server:
        yield Databases(server.url())


def ask(url: str, sql: str) -> Any:
    """The first row that a query gives, on a connection of its own."""
    import psycopg  # noqa: PLC0415

    with psycopg.connect(url, autocommit=True) as conn:
        row = conn.execute(sql.encode()).fetchone() or ()
    return tuple(int(value) if isinstance(value, decimal.Decimal) else value for value in row)
