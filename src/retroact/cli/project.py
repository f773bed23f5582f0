"""Which code and which database are meant: --code and --db, or the nearest retroact.toml.

    code = "shop.py"          # a .py file or a package folder, from the folder of this file
    database = "shop.db"
    migrations = "migrations" # a folder of numbered .sql and .py files; this is where they are looked for anyway

    [retention]               # optional: how much of the past `retroact compact` keeps
    age = "30d"
    size = "1GB"
    [retention.tables]
    sessions = "7d"

This module must not know what is done with them.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from retroact.cli.failure import BadRequest
from retroact.errors import NoProject

if TYPE_CHECKING:
    from retroact.trace.retention import Retention

FILE = "retroact.toml"
_KEYS = {"code": "--code", "database": "--db", "migrations": "FOLDER"}
_RETENTION = "retention"


def options(parser: argparse.ArgumentParser, *, code: bool = False) -> None:
    """Add the options that name the project."""
    parser.add_argument("--db", metavar="PATH", help=f"the database (default: `database` in {FILE})")
    if code:
        parser.add_argument("--code", metavar="PATH", help=f"the functions: a .py file or a package (default: `code` in {FILE})")


def database(args: argparse.Namespace) -> Path:
    """The database, which may not exist yet. Raises NoProject."""
    given: str | None = args.db
    if given is None:
        return _told("database", "the database")
    if "://" in given:
        from retroact.app import database_path

        return database_path(given)
    return Path(given)


def present_database(args: argparse.Namespace) -> Path:
    """The database, which exists. Raises NoProject."""
    path = database(args)
    if not path.exists():
        raise NoProject(
            problem=f"there is no database {path}", remedy="`retroact init` makes a project; `retroact run` makes its database."
        )
    return path


def code(args: argparse.Namespace) -> Path:
    """The code, which exists. Raises NoProject."""
    given: str | None = args.code
    return existing_code(Path(given) if given is not None else _told("code", "the functions"))


def retention(_args: argparse.Namespace) -> Retention | None:
    """What the project says is kept of the past, if it says so. Raises BadRequest, BadRetention."""
    file = nearest(Path.cwd())
    if file is None:
        return None
    told = _loaded(file).get(_RETENTION)
    if told is None:
        return None
    from retroact.trace.retention import Retention

    if not isinstance(told, dict) or not told.keys() <= {"age", "size", "tables", "outcomes"}:
        raise BadRequest(problem=f"{file}: [retention] is not understood: {told!r}", remedy="It holds age, size, tables and outcomes")
    return Retention(**cast("dict[str, Any]", told))


def migrations(given: str | None) -> Path:
    """The folder of migrations: as given, as the project says, or `migrations` beside the project's file. Raises NoProject."""
    if given is not None:
        return Path(given)
    file = nearest(Path.cwd())
    folder = Path("migrations") if file is None else _short(file.parent / _read(file).get("migrations", "migrations"))
    if not folder.is_dir():
        raise NoProject(problem=f"there is no folder {folder}", remedy="Make it, with files such as 0001_create.sql, or name another one.")
    return folder


def existing_code(path: Path) -> Path:
    """The same path. Raises NoProject when there is no code."""
    if not path.exists():
        raise NoProject(problem=f"there is no code {path}", remedy="Give a .py file or a package folder.")
    return path


def nearest(folder: Path) -> Path | None:
    """The retroact.toml of a folder, or of the first one above that has one."""
    return next((above / FILE for above in (folder, *folder.parents) if (above / FILE).is_file()), None)


def _told(key: str, what: str) -> Path:
    file = nearest(Path.cwd())
    if file is None:
        problem = f"no {FILE} in {Path.cwd()} or above it, and no {_KEYS[key]}"
        raise NoProject(problem=problem, remedy=f"Name {what} with {_KEYS[key]} PATH, or make a project: `retroact init`.")
    value = _read(file).get(key)
    if value is None:
        raise NoProject(problem=f"{file} does not name {what}", remedy=f'Write {key} = "PATH" into it, or give {_KEYS[key]} PATH.')
    return _short(file.parent / value)


def _loaded(file: Path) -> dict[str, Any]:
    import tomllib

    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadRequest(
            problem=f"{file} cannot be read: {error}", remedy='It holds two lines: code = "PATH" and database = "PATH"'
        ) from None


def _read(file: Path) -> dict[str, str]:
    found = {key: value for key, value in _loaded(file).items() if key != _RETENTION}
    for key, value in found.items():
        if key not in _KEYS or not isinstance(value, str):
            raise BadRequest(problem=f"{file}: {key} = {value!r} is not understood", remedy='It holds code = "PATH" and database = "PATH"')
    return found


def _short(path: Path) -> Path:
    """As seen from here, so that messages are short."""
    try:
        return path.relative_to(Path.cwd())
    except ValueError:
        return path
