"""Opens what the verbs work on: the trace, the past, the App. Here, and only here, the command line names an engine.

This module must not know any verb.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Generator, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from retroact.engine.sqlite.portable.magic import is_portable
from retroact.errors import OnlyForReading

if TYPE_CHECKING:
    from retroact.app import App
    from retroact.engine.postgres.trace_reader import TraceReader as ServerTrace
    from retroact.engine.sqlite.history import History
    from retroact.engine.sqlite.migration import Migration, Standing
    from retroact.engine.sqlite.portable.history import PortableHistory
    from retroact.engine.sqlite.trace_reader import TraceReader
    from retroact.portable import Exported, ExportOptions
    from retroact.replay.replayer import Progress


@contextlib.contextmanager
def trace_of(database: Path | str) -> Generator[TraceReader | ServerTrace]:
    """The records, read beside whoever writes, or in a portable trace. Raises NoProject, NotADatabase, NewerDatabase, DamagedFile,
    Unreachable."""
    reader = file_trace(database) if isinstance(database, Path) else _server_trace(database)
    try:
        yield reader
    finally:
        reader.close()


def file_trace(path: Path) -> TraceReader:
    """The records in a file: a database or a portable trace. Whoever asks closes it."""
    if is_portable(path):
        from retroact.engine.sqlite.portable.history import trace_in

        return trace_in(path)
    from retroact.engine.sqlite.trace_reader import TraceReader

    return TraceReader(path)


def _server_trace(url: str) -> ServerTrace:
    from retroact.engine.postgres import driver

    driver.need()
    from retroact.engine.clock import SystemClock
    from retroact.engine.postgres.trace_reader import TraceReader

    return TraceReader.on(url, SystemClock())


def ask_server(trace: TraceReader | ServerTrace, sql: str) -> list[Any]:
    """Rows of the present state of a server."""
    from retroact.engine.postgres.trace_reader import TraceReader

    assert isinstance(trace, TraceReader), "only a server is asked"
    return trace.query(sql)


@contextlib.contextmanager
def history_of(database: Path) -> Generator[History | PortableHistory]:
    """The past, of a database or in a portable trace. Raises NoProject, NotADatabase, NewerDatabase, BeyondHistory, DamagedFile."""
    if is_portable(database):
        from retroact.engine.sqlite.portable.history import open_portable

        history = open_portable(database)
        try:
            yield history
        finally:
            history.close()
    else:
        with home_of(database) as history:
            yield history


@contextlib.contextmanager
def home_of(database: Path) -> Generator[History]:
    """The past of a database. Raises NoProject, NotADatabase, NewerDatabase, BeyondHistory."""
    from retroact.engine.sqlite.history import History

    history = History(database)
    try:
        yield history
    finally:
        history.close()


def ask(database: Path, sql: str, parameters: Sequence[Any] = ()) -> list[Any]:
    """Rows of the present state, read beside whoever writes; of a portable trace, of its records."""
    if is_portable(database):
        from retroact.engine.sqlite.portable.history import trace_in

        trace = trace_in(database)
        try:
            return trace.rows(sql, parameters)
        finally:
            trace.close()
    from retroact.engine.sqlite.database import open_reader

    connection = open_reader(database)
    try:
        return connection.execute(sql, tuple(parameters)).fetchall()
    finally:
        connection.close()


@contextlib.contextmanager
def app_on(database: Path | str, *code: ModuleType, verify_rate: float = 0.0) -> Generator[App]:
    """An App that does not go on with interrupted runs by itself. Raises DatabaseBusy, NotADatabase, NewerDatabase, Unreachable,
    NoProject, PastNotKept."""
    if isinstance(database, Path) and is_portable(database):
        raise OnlyForReading(path=database)
    from retroact.app import App

    with App(database, *code, recover=False, verify_rate=verify_rate) as app:
        yield app


def functions_in(path: Path) -> ModuleType:
    """The module at a path, loaded. Raises LoadFailed."""
    from retroact.function.code import load_path

    with silenced():
        return load_path(path)


@contextlib.contextmanager
def silenced() -> Generator[None]:
    """What the user's functions print goes to standard error: standard output is for the answer."""
    with contextlib.redirect_stdout(sys.stderr):
        yield


def now_us() -> int:
    """What time it is."""
    from retroact.engine.clock import SystemClock

    return SystemClock().now_us()


def export(database: Path, runs: Sequence[str], to: Path, options: ExportOptions, progress: Progress) -> Exported:
    """Write runs into a portable trace. Raises what `retroact.portable.export` raises."""
    from retroact import portable

    return portable.export(database, runs, to, options, progress=progress)


def horizon(history: History | PortableHistory) -> int:
    """The first version that can be travelled to."""
    return history.pages.horizon.version


def asked(database: Path, request: dict[str, Any]) -> Any:
    """What the process that writes answers to a request to compact. Raises Unanswered, BadRequest with what it raised."""
    from retroact.cli.failure import Refused
    from retroact.engine.sqlite.keeper import from_json
    from retroact.engine.sqlite.mailbox import Mailbox

    answer = Mailbox(database).ask(request, pid=writer_of(database) or "unknown")
    if "done" not in answer:
        raise Refused(error=answer.get("error", "an error"), message=answer.get("message", ""))
    return from_json(answer["done"])


def standing_of(database: Path, migrations: Sequence[Migration]) -> Standing:
    """Which migrations were applied; to a database that does not exist, none."""
    from retroact.engine.sqlite.database import open_reader
    from retroact.engine.sqlite.migration import Standing, standing

    if not database.exists():
        return Standing(migrations=tuple(migrations), applied={})
    connection = open_reader(database)
    try:
        return standing(connection, migrations)
    finally:
        connection.close()


def details_size(database: Path) -> int:
    """The bytes of what records hold besides their outcomes."""
    from retroact.engine.sqlite.horizon import details_weight

    with contextlib.closing(file_trace(database)) as trace:
        cleared = trace.horizon().cleared
        return trace.ask(lambda connection: details_weight(connection, cleared, 2**62))


def runs_until(history: History | PortableHistory, version: int) -> set[str]:
    """The runs that wrote a record at or before a version."""
    return {row[0] for row in ask(history.path, "select distinct run from retroact_record where version <= ?", (version,))}


def writer_of(database: Path) -> str | None:
    """The process that has the database open for writing. Asked by trying the lock for a moment. Raises OnlyForReading."""
    if is_portable(database):
        raise OnlyForReading(path=database)
    from retroact.engine.sqlite.lock import WriterLock
    from retroact.errors import DatabaseBusy

    lock = WriterLock(database)
    try:
        lock.acquire()
    except DatabaseBusy as busy:
        return str(busy.details["pid"])
    lock.release()
    return None


def settings(database: Path) -> dict[str, Any]:
    """How the database file is set."""
    level = ask(database, "pragma synchronous")[0][0]
    return {
        "schema": ask(database, "select value from retroact_meta where key = 'schema'")[0][0],
        "journal_mode": ask(database, "pragma journal_mode")[0][0],
        "synchronous": ("off", "normal", "full", "extra")[level],
    }


def trace_size(database: Path) -> tuple[int, int]:
    """How many records there are, and the bytes that they and their indexes take."""
    records = ask(database, "select count(*) from retroact_record")[0][0]
    size = ask(database, "select sum(pgsize) from dbstat where name in ('retroact_record', 'retroact_record_guard')")[0][0]
    return records, size or 0


def statements_in(sql: str) -> int:
    """How many statements a text holds; a remark after the last is none."""
    from retroact.engine.sqlite.database import split

    return sum(any(line.strip() and not line.strip().startswith("--") for line in part.splitlines()) for part in split(sql))
