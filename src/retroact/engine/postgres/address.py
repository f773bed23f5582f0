"""The address of a Postgres database: read, shown without its password, and the schema of the trace set up there.

Set-up is one transaction under a lock of its own, so programs may start at the same time; it needs the right to create a schema in the
database, or the schema `retroact` made beforehand for the role. Nothing needs a superuser.

This module must not know what the tables mean beyond the version of their schema.
"""

from __future__ import annotations

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from retroact.engine.postgres.literal import text
from retroact.engine.postgres.queries import queries, script
from retroact.engine.postgres.session import Session
from retroact.errors import NewerDatabase, NoProject, Unreachable

SCHEMA_VERSION = 1
#: "retroact" as a number: whoever sets the schema up holds the lock of this name.
_SET_UP = 0x7265_7472_6F61_6374
_LIBPQ = "postgresql://user@host:5432/database"


def shown(url: str) -> str:
    """An address for messages: without the password, and what else need not be told. Raises NoProject."""
    parts = _parts(url)
    host, port, name = str(parts.get("host") or ""), parts.get("port"), str(parts.get("dbname") or parts.get("user") or "")
    user = f"{parts['user']}@" if parts.get("user") else ""
    where = "" if host.startswith("/") else host
    return f"postgresql://{user}{where}{f':{port}' if port and where else ''}/{name}"


def _parts(url: str) -> dict[str, object]:
    try:
        return dict(conninfo_to_dict(url))
    except psycopg.ProgrammingError as error:
        raise NoProject(problem=f"the database address cannot be read ({str(error).strip()})", remedy=f"Write it as {_LIBPQ}.") from None


def told(url: str) -> str:
    """An address as it is connected with: the server's list of connections says who we are."""
    parts = _parts(url)
    return make_conninfo(url, **({} if "application_name" in parts else {"application_name": "retroact"}))


def connect(url: str) -> Session:
    """A connection without regard to the schema. Raises Unreachable, NoProject."""
    address = told(url)
    try:
        return Session(address)
    except psycopg.Error as error:
        raise Unreachable(database=shown(url), problem=_short(error)) from None


def set_up(session: Session, url: str) -> None:
    """Create the tables of the trace where they are missing. Raises NewerDatabase, NoProject, Unreachable."""
    try:
        if _is_installed(session, url):
            return
        session.flight(f"begin; select pg_advisory_xact_lock({_SET_UP})".encode())
        if not _is_installed(session, url):
            present = session.rows(queries()["installed"])[0][1]
            create = "" if present else "create schema retroact;\n"
            mark = queries()["mark_installed"].format(version=text(str(SCHEMA_VERSION)))
            session.flight(f"{create}{script('schema.sql')};{mark}".encode())
        session.flight(b"commit")
    except psycopg.errors.InsufficientPrivilege as error:
        session.rollback()
        remedy = "As its owner: `create schema retroact authorization ROLE`, with the role that this program connects as."
        raise NoProject(problem=f"the trace cannot be set up in {shown(url)} ({_short(error)})", remedy=remedy) from None
    except psycopg.Error as error:
        raise Unreachable(database=shown(url), problem=_short(error)) from None


def check(session: Session, url: str) -> None:
    """Refuse a database without a trace, or with a newer one. Raises NoProject, NewerDatabase."""
    if not _is_installed(session, url):
        raise NoProject(problem=f"{shown(url)} has no trace", remedy="Open it once with `retroact run` or App(...).")


def _is_installed(session: Session, url: str) -> bool:
    if not session.rows(queries()["installed"])[0][0]:
        return False
    found = session.rows(queries()["schema_version"])
    if found and int(found[0][0]) > SCHEMA_VERSION:
        raise NewerDatabase(path=shown(url), found=found[0][0], known=SCHEMA_VERSION)
    return True


def _short(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
