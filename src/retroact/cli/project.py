"""Which code and which database are meant: --code and --db, or the nearest retroact.toml.

    code = "shop.py"          # a .py file or a package folder, from the folder of this file
    database = "shop.db"

This module must not know what is done with them.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from retroact.cli.failure import BadRequest
from retroact.errors import NoProject, PastNotKept

FILE = "retroact.toml"
_KEYS = {"code": "--code", "database": "--db"}


def options(parser: argparse.ArgumentParser, *, code: bool = False) -> None:
    """Add the options that name the project."""
    parser.add_argument("--db", metavar="PATH|URL", help=f"the database: a file, or postgresql://... (default: `database` in {FILE})")
    if code:
        parser.add_argument("--code", metavar="PATH", help=f"the functions: a .py file or a package (default: `code` in {FILE})")


def database(args: argparse.Namespace) -> Path | str:
    """The database, which may not exist yet: a file, or the address of a server. Raises NoProject."""
    given: str | None = args.db
    found = _told("database", "the database") if given is None else given
    if isinstance(found, str) and "://" in found:
        from retroact.app import database_path

        return database_path(found)
    return Path(found)


def past(args: argparse.Namespace) -> Path:
    """The database, which exists and keeps its past. Raises NoProject, PastNotKept."""
    path = present_database(args)
    if not isinstance(path, Path):
        from retroact.engine.postgres import driver

        driver.need()
        from retroact.engine.postgres.address import shown

        raise PastNotKept(what="What is asked for", database=shown(path))
    return path


def present_database(args: argparse.Namespace) -> Path | str:
    """The database, which exists (a server is asked later). Raises NoProject."""
    path = database(args)
    if isinstance(path, Path) and not path.exists():
        raise NoProject(
            problem=f"there is no database {path}", remedy="`retroact init` makes a project; `retroact run` makes its database."
        )
    return path


def code(args: argparse.Namespace) -> Path:
    """The code, which exists. Raises NoProject."""
    given: str | None = args.code
    return existing_code(Path(given if given is not None else _told("code", "the functions")))


def existing_code(path: Path) -> Path:
    """The same path. Raises NoProject when there is no code."""
    if not path.exists():
        raise NoProject(problem=f"there is no code {path}", remedy="Give a .py file or a package folder.")
    return path


def nearest(folder: Path) -> Path | None:
    """The retroact.toml of a folder, or of the first one above that has one."""
    return next((above / FILE for above in (folder, *folder.parents) if (above / FILE).is_file()), None)


def _told(key: str, what: str) -> Path | str:
    file = nearest(Path.cwd())
    if file is None:
        problem = f"no {FILE} in {Path.cwd()} or above it, and no {_KEYS[key]}"
        raise NoProject(problem=problem, remedy=f"Name {what} with {_KEYS[key]} PATH, or make a project: `retroact init`.")
    value = _read(file).get(key)
    if value is None:
        raise NoProject(problem=f"{file} does not name {what}", remedy=f'Write {key} = "PATH" into it, or give {_KEYS[key]} PATH.')
    return value if "://" in value else _short(file.parent / value)


def _read(file: Path) -> dict[str, str]:
    import tomllib

    try:
        found = tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadRequest(
            problem=f"{file} cannot be read: {error}", remedy='It holds two lines: code = "PATH" and database = "PATH"'
        ) from None
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
