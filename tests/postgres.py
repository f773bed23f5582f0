"""The Postgres server of a test session, and databases on it that tests take in turn.

A server is found by RETROACT_TEST_POSTGRES (an address that may create databases), or else made: see `retroact.testing.postgres`. It is
made without fsync: no test makes the machine itself fail, and what a killed server has written is there.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from retroact.engine.postgres import driver
from retroact.errors import NoProject
from retroact.testing.postgres import PostgresServer, programs

VARIABLE = "RETROACT_TEST_POSTGRES"
_END_OTHERS = "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"
_RESET = "drop schema if exists retroact cascade; drop schema public cascade; create schema public; grant all on schema public to public"


def found() -> str:
    """Which server the tests run on, in a line. Raises NoProject."""
    driver.need()
    return f"the server of {VARIABLE}" if os.environ.get(VARIABLE) else str(programs())


class Databases:
    """Empty databases, one for each folder that asks."""

    def __init__(self) -> None:
        given = os.environ.get(VARIABLE)
        self.server = None if given else PostgresServer(fsync="off", full_page_writes="off", autovacuum="off")
        self._given = given or ""
        self._free: list[str] = []
        self._taken: dict[Path, str] = {}
        self._made = 0

    def url(self, folder: Path) -> str:
        """The database of a folder, empty when it is asked for the first time."""
        if folder not in self._taken:
            self._taken[folder] = self._empty() if self._free else self._make()
        return self._url(self._taken[folder])

    def give_back(self, under: Path | None = None) -> None:
        """Who asked for the databases of the folders under this one has ended: others may use them."""
        for folder in [folder for folder in self._taken if under is None or folder.is_relative_to(under)]:
            self._free.append(self._taken.pop(folder))

    def close(self) -> None:
        if self.server is not None:
            self.server.close()
            return
        import psycopg
        from psycopg import sql

        with psycopg.connect(self._given, autocommit=True) as conn:
            for name in self._free:
                conn.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))

    def _empty(self) -> str:
        import psycopg

        name = self._free.pop()
        with psycopg.connect(self._url(name), autocommit=True) as conn:
            conn.execute(_END_OTHERS)
            conn.execute("set client_min_messages to warning")
            conn.execute(_RESET)
        return name

    def _make(self) -> str:
        import psycopg
        from psycopg import sql

        self._made += 1
        name = f"retroact_test_{os.getpid()}_{self._made}"
        with psycopg.connect(self._given or self._url("postgres"), autocommit=True) as conn:
            conn.execute(sql.SQL("create database {} template template0").format(sql.Identifier(name)))
        return name

    def _url(self, name: str) -> str:
        if self.server is not None:
            return self.server.url(name)
        from psycopg.conninfo import conninfo_to_dict

        parts = conninfo_to_dict(self._given)
        query = "&".join(f"{key}={value}" for key, value in parts.items() if key not in ("user", "dbname"))
        return f"postgresql://{parts.get('user', 'postgres')}@/{name}?{query}"


def none_found() -> None:
    """Skip a test when there is no server, and say why: not every machine has one. The header of the tests says it too."""
    try:
        found()
    except NoProject as error:
        pytest.skip(str(error))
