"""Opens a SQLite file for writing or for reading, with the settings that every promise rests on.

Invariants: WAL, synchronous=FULL, no automatic checkpoint (the page log must have every page first), foreign keys on, and no
transaction that the platform did not begin.

This module must not know what the tables mean beyond the version of their schema.
"""

from __future__ import annotations

from pathlib import Path

import apsw

from retroact.engine.sqlite.queries import script
from retroact.errors import NewerDatabase, NoProject, NotADatabase

SCHEMA_VERSION = 2
_MAGIC = b"SQLite format 3\x00"


def open_writer(path: Path) -> apsw.Connection:
    """The one connection that writes, before anything is written on it. Creates the file. Raises NotADatabase, NewerDatabase."""
    check_file(path)
    try:
        database = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE, statementcachesize=512)
        database.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        database.set_busy_timeout(10_000)
        mode = database.pragma("journal_mode", "wal")
        database.pragma("synchronous", "full")
        database.wal_autocheckpoint(0)
        database.pragma("foreign_keys", True)
        check_schema(database, path)
    except (apsw.NotADBError, apsw.CorruptError, apsw.CantOpenError, apsw.ReadOnlyError, apsw.FullError) as error:
        raise NotADatabase(path=path, problem=error) from None
    if mode != "wal":
        raise NotADatabase(path=path, problem="it cannot be put in WAL mode")
    return database


def create_trace(database: apsw.Connection) -> None:
    """Create the tables of the trace where they are missing: all of them, or those that an older version did not have."""
    present = database.table_exists("main", "retroact_meta")
    if present and int(database.execute("select value from retroact_meta where key = 'schema'").get or 0) >= SCHEMA_VERSION:
        return
    database.execute("begin immediate")
    for statement in split(script("schema.sql")):
        database.execute(statement)
    database.execute("insert or replace into retroact_meta values ('schema', ?)", (str(SCHEMA_VERSION),))
    database.execute("commit")


def open_reader(path: Path) -> apsw.Connection:
    """A connection that only reads, beside the writer or after it. Raises NoProject, NotADatabase, NewerDatabase."""
    if not path.exists():
        raise NoProject(
            problem=f"there is no database {path}", remedy="`retroact init` makes a project; `retroact run` makes its database."
        )
    check_file(path)
    try:
        database = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
        database.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        database.set_busy_timeout(10_000)
        database.pragma("query_only", True)
        check_schema(database, path)
        if not database.table_exists("main", "retroact_meta"):
            raise NoProject(problem=f"{path} has no trace", remedy="Open it once with `retroact run` or App(...).")
    except (apsw.NotADBError, apsw.CorruptError) as error:
        raise NotADatabase(path=path, problem=error) from None
    return database


def check_file(path: Path) -> None:
    """Refuse what is no database before SQLite touches it. Raises NotADatabase, NoProject."""
    if path.is_dir():
        raise NotADatabase(path=path, problem="it is a folder")
    if not path.parent.exists():
        raise NoProject(problem=f"the folder {path.parent} does not exist", remedy="Create it, or give another path.")
    if path.exists() and path.stat().st_size:
        with path.open("rb") as file:
            if file.read(16) != _MAGIC:
                raise NotADatabase(path=path, problem="its first bytes are not those of a database")


def check_schema(database: apsw.Connection, path: Path) -> None:
    """Refuse a trace that a newer version wrote. Raises NewerDatabase."""
    if database.table_exists("main", "retroact_meta"):
        found = database.execute("select value from retroact_meta where key = 'schema'").get
        if found is not None and int(found) > SCHEMA_VERSION:
            raise NewerDatabase(path=path, found=found, known=SCHEMA_VERSION)


def split(text: str) -> list[str]:
    """The statements of a script, one by one: a cursor that runs several stops at the first that returns a row."""
    statements: list[str] = []
    rest = text
    while rest.strip():
        end = 0
        while (end := rest.find(";", end) + 1) and not apsw.complete(rest[:end]):
            pass
        statements.append(rest[: end or len(rest)])
        rest = rest[end:] if end else ""
    return [s for s in statements if s.strip()]
