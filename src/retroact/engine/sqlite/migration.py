"""Migrations: numbered SQL and Python files, each run once, in order, as a recorded transaction.

A file becomes a transaction function whose code is stored with its record like any other: a SQL file as a module that lists its
statements, a Python file as it is, with the transaction that calls its `migrate(conn)` behind it. So a replay needs no file. The run id is
`migration-0001`, which makes it exactly once; its value is the hash of the file, by which a file that was changed later is found out.

This module must not know where the folder is told, nor how anything is shown.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import apsw

from retroact.engine.contract import Invocation
from retroact.engine.sqlite.engine import SqliteEngine
from retroact.engine.sqlite.queries import fetch
from retroact.errors import BadMigration, BadStatement, LoadFailed, MigrationChanged, MigrationFailed
from retroact.function.code import Code, Source, capture, load, load_path, unload
from retroact.function.declare import Function
from retroact.trace.codec import decode_json, encode_json
from retroact.trace.record import ALONE, RunId

_NAME: Final = re.compile(r"(\d+)_([A-Za-z0-9_-]+)\.(sql|py)")
_REMARK: Final = re.compile(r"\s+|--[^\n]*(?:\n|$)|/\*.*?(?:\*/|$)", re.DOTALL)
_APPLIED: Final = (
    "select run, value, failure, version, began_us from retroact_record where run >= 'migration-' and run < 'migration.' and step = 0"
    " order by version"
)
_SQL_MODULE: Final = '''"""The migration {file}: its statements, as they were when it was applied."""

from retroact import transaction

STATEMENTS = (
{statements}
)


@transaction(name={name!r})
def migrate(conn, file: str, hash: str) -> str:
    for sql in STATEMENTS:
        conn.execute(sql)
    return hash
'''
_PYTHON_TAIL: Final = """

from retroact import transaction as _transaction  # the rest was added when the migration was applied


@_transaction(name={name!r})
def _apply(conn, file: str, hash: str) -> str:
    migrate(conn)
    return hash
"""


@dataclasses.dataclass(frozen=True, slots=True)
class Piece:
    """One statement of a SQL file, and the line on which it begins."""

    sql: str
    line: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Migration:
    """One file."""

    number: int
    name: str
    path: Path
    text: str
    #: The statements of a SQL file; None of a Python file.
    pieces: tuple[Piece, ...] | None

    @property
    def hash(self) -> str:
        """What the file is known by: its text, however its lines end."""
        return hashlib.blake2b(self.text.encode(), digest_size=8).hexdigest()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """A migration that stands."""

    number: int
    hash: str
    version: int
    began_us: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Where a database stands: each migration, with when it was applied, if it was."""

    migrations: tuple[Migration, ...]
    applied: dict[int, Applied]

    @property
    def pending(self) -> tuple[Migration, ...]:
        """Those that are still to be applied, in order."""
        return tuple(m for m in self.migrations if m.number not in self.applied)


# --- the files --------------------------------------------------------------------------------------------------------------


def read_folder(folder: Path) -> tuple[Migration, ...]:
    """The migrations of a folder in order. Raises BadMigration for a name that is not understood, a gap or a double number."""
    if not folder.is_dir():
        raise BadMigration(file=folder, problem="there is no such folder", remedy="Make it, with files such as 0001_create.sql.")
    found: dict[int, Migration] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix not in (".sql", ".py") or path.name == "__init__.py":
            continue
        migration = _read(path)
        if migration.number in found:
            problem = f"{found[migration.number].path.name} has the number {migration.number} too"
            raise BadMigration(file=path, problem=problem, remedy="Give one of them the next number.")
        found[migration.number] = migration
    ordered = [found[number] for number in sorted(found)]
    for expected, migration in enumerate(ordered, start=min(ordered[0].number, 1) if ordered else 1):
        if migration.number != expected:
            remedy = "They are numbered without gaps, from 1, so that the order is the same everywhere."
            raise BadMigration(file=migration.path, problem=f"number {expected} is missing before it", remedy=remedy)
    return tuple(ordered)


def _read(path: Path) -> Migration:
    named = _NAME.fullmatch(path.name)
    if named is None:
        raise BadMigration(file=path, problem="its name is not understood", remedy="Name it 0003_what_it_does.sql or .py.")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadMigration(file=path, problem=f"it cannot be read: {error}", remedy="It is text in UTF-8.") from error
    pieces = tuple(statements(text)) if named[3] == "sql" else None
    return Migration(number=int(named[1]), name=path.stem, path=path, text=text, pieces=pieces)


def statements(text: str) -> list[Piece]:
    """The statements of a script, with the lines on which they begin; a trigger's body belongs to its statement."""
    found: list[Piece] = []
    start = line = 0
    while start < len(text):
        end = start
        while (end := text.find(";", end) + 1) and not apsw.complete(text[start:end]):
            pass
        end = end or len(text)
        at = start
        while (remark := _REMARK.match(text, at)) is not None and remark.end() > at and at < end:
            at = remark.end()
        if at < end and text[at:end].strip(" \t\r\n;"):
            found.append(Piece(text[at:end].strip().removesuffix(";"), line + text.count("\n", start, at) + 1))
        line += text.count("\n", start, max(at, end))
        start = max(at, end)
    return found


def _code_of(migration: Migration) -> Code:
    """What is stored and run. Raises BadMigration."""
    name = "migration_" + re.sub(r"\W", "_", migration.name)
    if migration.pieces is None:
        try:
            module = load_path(migration.path)
        except LoadFailed as error:
            raise BadMigration(file=migration.path, problem=str(error), remedy="It is a Python module with migrate(conn).") from error
        code = capture(module)
        given = getattr(module, "migrate", None)
        unload(module)
        if not callable(given) or isinstance(given, Function):
            remedy = "Define `def migrate(conn): ...`, without a decorator: it runs as one transaction."
            raise BadMigration(file=migration.path, problem="it has no plain function migrate(conn)", remedy=remedy)
        tail = _PYTHON_TAIL.format(name=migration.name)
        text = migration.text.rstrip() + tail
        others = tuple(source for source in code.sources if source.name != code.main)
        return Code(main=name, sources=(Source(name, migration.path.name, text), *others))
    listed = "\n".join(f"    {piece.sql!r}," for piece in migration.pieces)
    text = _SQL_MODULE.format(file=migration.path.name, statements=listed, name=migration.name)
    return Code(main=name, sources=(Source(name, f"{name}.py", text),))


# --- the database -----------------------------------------------------------------------------------------------------------


def standing(database: apsw.Connection, migrations: Sequence[Migration]) -> Standing:
    """Where a database stands. Raises MigrationChanged, BadMigration when the file of an applied migration is missing."""
    applied = {a.number: a for a in _applied(database)}
    known = {migration.number: migration for migration in migrations}
    for number, done in sorted(applied.items()):
        migration = known.get(number)
        if migration is None:
            problem = f"migration {number} was applied as version {done.version}, and its file is missing"
            raise BadMigration(file=f"migrations/{number:04d}_...", problem=problem, remedy="Put the file back.")
        if migration.hash != done.hash:
            raise MigrationChanged(file=migration.path, now=migration.hash, then=done.hash, version=done.version)
    return Standing(migrations=tuple(migrations), applied=applied)


def _applied(database: apsw.Connection) -> list[Applied]:
    found: list[Applied] = []
    for run, value, failure, version, began_us in fetch(database, _APPLIED):
        number = re.fullmatch(r"migration-(\d+)(?:-again-\d+)?", run)
        if number is not None and failure is None and value is not None:
            found.append(Applied(number=int(number[1]), hash=str(decode_json(value)), version=version, began_us=began_us))
    return found


def migrate(engine: SqliteEngine, migrations: Sequence[Migration]) -> tuple[Applied, ...]:
    """Apply what is pending, each migration as one transaction. Raises MigrationFailed, MigrationChanged, BadMigration; the migrations
    before the one that failed stand."""
    pending = engine.trace.ask(lambda database: standing(database, migrations)).pending
    functions = [(migration, _code_of(migration)) for migration in pending]
    for migration, code in functions:
        _apply(engine, migration, code)
    numbers = {migration.number for migration in pending}
    return tuple(a for a in engine.trace.ask(_applied) if a.number in numbers)


def _apply(engine: SqliteEngine, migration: Migration, code: Code) -> None:
    module = load(code)
    try:
        function: Function[..., Any] = module._apply if migration.pieces is None else module.migrate  # noqa: SLF001 - ours
        engine.know([function], {function.module: code})
        arguments = encode_json({"file": migration.path.name, "hash": migration.hash})
        invocation = Invocation(run=_run_of(engine, migration), step=ALONE, function=function, arguments=arguments)
        ran, _ = engine.transact(invocation)
    finally:
        unload(module)
    if ran.outcome.failure is not None:
        raise _failed(migration, ran.error, ran.outcome.failure.message, ran.outcome.failure.statement) from ran.error


def _run_of(engine: SqliteEngine, migration: Migration) -> RunId:
    """The id of the next attempt: one that failed stays in the record, and does not stand in the way of the next."""
    run = f"migration-{migration.number:04d}"
    attempt = 1
    while engine.trace.find_run(RunId(run if attempt == 1 else f"{run}-again-{attempt}")) is not None:
        attempt += 1
    return RunId(run if attempt == 1 else f"{run}-again-{attempt}")


def _failed(migration: Migration, error: Exception | None, message: str, statement: int | None) -> MigrationFailed:
    """Where in its file a migration failed."""
    problem, sql, line = message, "", 0
    if isinstance(error, BadStatement):
        problem, statement = str(error.details["problem"]), int(str(error.details["statement"]))
        sql = str(error.details["sql"])
    if migration.pieces is not None and statement is not None and statement <= len(migration.pieces):
        piece = migration.pieces[statement - 1]
        sql, line = piece.sql, piece.line
    elif error is not None:
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if migration.path.name in frame.filename]
        own = [number for number in lines if number is not None and number <= migration.text.count("\n") + 1]
        line = own[-1] if own else 0
        problem = problem if isinstance(error, BadStatement) else f"{type(error).__name__}: {problem}"
    where = "".join((f", line {line}" if line else "", f", statement {statement}" if statement else ""))
    told = f" The SQL was: {' '.join(sql.split())[:300]}" if sql else ""
    return MigrationFailed(file=migration.path, where=where, problem=problem, sql=told)
