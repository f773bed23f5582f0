"""Which code and which database are meant: --code and --db, or the nearest retroact.toml.

    code = "shop.py"          # a .py file or a package folder, from the folder of this file
    database = "shop.db"
    verify_rate = 0.01        # optional: the share of runs that is executed a second time, see `retroact run --verify-rate`
    migrations = "migrations" # a folder of numbered .sql and .py files; this is where they are looked for anyway

    [lint]
    ignore = ["RT209"]        # optional: rules that `retroact lint` leaves out

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
_FORM = 'It holds code = "PATH" and database = "PATH", and may hold migrations = "PATH", verify_rate = 0.01, [lint] and [retention]'


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
        from retroact.engines import database_path

        return database_path(found)
    return Path(found)


def past(args: argparse.Namespace) -> Path:
    """The database, which exists and keeps its past. Raises NoProject, PastNotKept."""
    return file_of(present_database(args))


def file_of(path: Path | str) -> Path:
    """A database that keeps its past, whether it exists or not. Raises PastNotKept."""
    if isinstance(path, Path):
        return path
    from retroact import engines

    return engines.file_of(path)


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


def verify_rate(args: argparse.Namespace) -> float:
    """The share of runs that is executed a second time. Raises BadRequest."""
    rate: float | None = getattr(args, "verify_rate", None)
    file = nearest(Path.cwd()) if rate is None else None
    if file is not None:
        rate = _read(file).get("verify_rate")
    if rate is not None and not 0 <= rate <= 1:
        raise BadRequest(problem=f"the verify rate is a share between 0 and 1, not {rate}", remedy="0.01 verifies one run in a hundred")
    return rate or 0.0


def ignored_rules(folder: Path) -> list[str]:
    """The rules that the project of a folder leaves out of `retroact lint`. Raises BadRequest."""
    file = nearest(folder)
    return _read(file).get("lint", {}).get("ignore", []) if file is not None else []


def _told(key: str, what: str) -> Path | str:
    file = nearest(Path.cwd())
    if file is None:
        problem = f"no {FILE} in {Path.cwd()} or above it, and no {_KEYS[key]}"
        raise NoProject(problem=problem, remedy=f"Name {what} with {_KEYS[key]} PATH, or make a project: `retroact init`.")
    value = _read(file).get(key)
    if value is None:
        raise NoProject(problem=f"{file} does not name {what}", remedy=f'Write {key} = "PATH" into it, or give {_KEYS[key]} PATH.')
    return value if "://" in value else _short(file.parent / value)


def _loaded(file: Path) -> dict[str, Any]:
    import tomllib

    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadRequest(problem=f"{file} cannot be read: {error}", remedy=_FORM) from None


def _read(file: Path) -> dict[str, Any]:
    found = {key: value for key, value in _loaded(file).items() if key != _RETENTION}
    for key, value in found.items():
        if not _is_understood(key, value):
            raise BadRequest(problem=f"{file}: {key} = {value!r} is not understood", remedy=_FORM)
    return found


def _is_understood(key: str, value: Any) -> bool:
    match key:
        case "code" | "database" | "migrations":
            return isinstance(value, str)
        case "verify_rate":
            return isinstance(value, int | float) and not isinstance(value, bool)
        case "lint":
            return isinstance(value, dict) and all(
                name == "ignore" and isinstance(rules, list) and all(isinstance(rule, str) for rule in cast("list[Any]", rules))
                for name, rules in cast("dict[str, Any]", value).items()
            )
        case _:
            return False


def _short(path: Path) -> Path:
    """As seen from here, so that messages are short."""
    try:
        return path.relative_to(Path.cwd())
    except ValueError:
        return path
