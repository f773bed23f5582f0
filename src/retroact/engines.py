"""Which engine stands behind the name of a database: a path, or an address with a scheme.

An engine is loaded when a database of its kind is opened. This module must not know what is run on an engine.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retroact.engine.clock import Clock
from retroact.engine.sqlite.engine import SqliteEngine
from retroact.errors import NoProject, PastNotKept

if TYPE_CHECKING:
    from retroact.engine.postgres.engine import PostgresEngine


def database_path(database: str | Path) -> Path | str:
    """The file behind a database URL or path; the URL itself when a server is behind it. Raises NoProject."""
    text = str(database)
    scheme, separator, rest = text.partition("://")
    if not separator:
        return Path(text)
    if scheme not in _ENGINES:
        schemes = ", ".join(f"{known}://" for known in _ENGINES)
        raise NoProject(problem=f"no engine for {scheme}://", remedy=f"Use a plain path, or one of {schemes}.")
    return Path(rest.removeprefix("/")) if scheme == "sqlite" else text


def open_engine(database: Path | str, clock: Clock, *, recording: bool) -> SqliteEngine | PostgresEngine:
    """The engine behind a database. Raises what opening it raises."""
    scheme = "sqlite" if isinstance(database, Path) else database.partition("://")[0]
    return _ENGINES[scheme](database, clock, recording)


def file_of(database: Path | str, what: str = "What is asked for") -> Path:
    """The file of a database that keeps its past. Raises PastNotKept, which says what has need of it."""
    if isinstance(database, Path):
        return database
    from retroact.engine.postgres import driver

    driver.need()
    from retroact.engine.postgres.address import shown

    raise PastNotKept(what=what, database=shown(database))


def _open_sqlite(path: Any, clock: Clock, recording: bool) -> SqliteEngine:
    return SqliteEngine(path, clock, recording=recording)


def _open_postgres(url: Any, clock: Clock, _recording: bool) -> PostgresEngine:
    from retroact.engine.postgres import driver

    driver.need()
    from retroact.engine.postgres.engine import PostgresEngine

    return PostgresEngine(url, clock)


#: Which engine stands behind a database URL, by its scheme.
_ENGINES: dict[str, Callable[[Any, Clock, bool], SqliteEngine | PostgresEngine]] = {
    "sqlite": _open_sqlite,
    "postgresql": _open_postgres,
    "postgres": _open_postgres,
}
