"""A platform in small: one writer whose commits are logged in batches, checkpointed, and remembered as dumps to compare with.

It must not know how the page log stores anything.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import apsw

from retroact.engine.sqlite import wal
from retroact.engine.sqlite.pagelog import LoggedCommit, PageLog, PageLogWriter
from retroact.engine.sqlite.timetravel import TimeTravel

Dump = dict[str, list[tuple[object, ...]]]


def connect(path: Path) -> apsw.Connection:
    connection = apsw.Connection(str(path))
    connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
    connection.pragma("journal_mode", "wal")
    connection.pragma("synchronous", "off")
    connection.wal_autocheckpoint(0)
    return connection


def dump(connection: apsw.Connection) -> Dump:
    """Schema and contents, rowids and their order included."""
    schema = connection.execute("select type, name, tbl_name, rootpage, sql from sqlite_schema").fetchall()
    result: Dump = {"": schema}
    for kind, name, *_, sql in schema:
        if kind != "table":
            continue
        bare = "without rowid" in str(sql).lower()
        result[str(name)] = connection.execute(f'select {"" if bare else "rowid,"} * from "{name}"').fetchall()
    return result


class Platform:
    """The writer process. `versions[n]` and `dumps[n]` are what commit `n` should be."""

    def __init__(self, path: Path, *, batch: int = 7, remember: bool = True) -> None:
        self.path = path
        self.wal_path = Path(f"{path}-wal")
        self.batch = batch
        self.remember = remember
        self.version = 0
        self.dumps: dict[int, Dump] = {}
        self.versions: dict[int, int] = {}
        self.generations: set[tuple[int, int]] = set()
        self._frames = 0
        self._waiting: list[int] = []
        self.start()

    def start(self, *, cached_pages: int = 2000) -> int:
        self.writer = connect(self.path)
        self.reader = apsw.Connection(str(self.path), flags=apsw.SQLITE_OPEN_READONLY)
        self.writer.set_wal_hook(self._hook)
        self.log = PageLogWriter(self.path, cached_pages=cached_pages)
        taken = self.log.catch_up(self.wal_path, lambda number: self.versions.setdefault(number, self.version))
        self.number = self.log.last_commit.number
        if self.remember:
            self.dumps.setdefault(self.number, dump(self.reader))
        return taken

    def _hook(self, _connection: apsw.Connection, _name: str, frames: int) -> int:
        self._frames = frames
        self.version += 2  # versions are not commit numbers: several may be in one commit
        self.number += 1
        self.versions[self.number] = self.version
        self._waiting.append(self.version)
        return 0

    def commit(self, *statements: str | tuple[str, tuple[object, ...]]) -> None:
        """One transaction, or one bare statement that cannot be in one."""
        before = self.number
        bare = len(statements) == 1
        if not bare:
            self.writer.execute("begin immediate")
        for statement in statements:
            sql, arguments = (statement, ()) if isinstance(statement, str) else statement
            self.writer.execute(sql, arguments).fetchall()
        if not bare:
            self.writer.execute("commit")
        assert self.number <= before + 1
        if self.remember and self.number > before:
            self.dumps[self.number] = dump(self.reader)
        if len(self._waiting) >= self.batch:
            self.flush()

    def flush(self, *, checkpoint: bool = True) -> None:
        if self._waiting:
            self.log.append(self.read_waiting())
            self._waiting.clear()
        if checkpoint:
            self.writer.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)

    def read_waiting(self) -> list[LoggedCommit]:
        fd = os.open(self.wal_path, os.O_RDONLY)
        header = wal.read_header(fd)
        assert header is not None
        commits = list(wal.read_commits(fd, header, self.log.next_frame(header), self._frames))
        os.close(fd)
        self.generations.add(header.salts)
        return [LoggedCommit(c, v, 1_000_000 + v) for c, v in zip(commits, self._waiting, strict=True)]

    def crash(self) -> None:
        """End without logging what waits. (Nothing here is done at closing that a killed process would not have done.)"""
        self._waiting.clear()
        self._end()

    def close(self) -> None:
        self.flush()
        self.log.note_closed()
        self.reader.close()
        self.writer.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        self._end()

    def _end(self) -> None:
        self.log.close()
        for connection in (self.reader, self.writer):
            if connection:
                connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
                connection.close()


def check_past(path: Path, dumps: dict[int, Dump], versions: dict[int, int]) -> None:
    """Every past state can be opened by its version, and is what it was."""
    log = PageLog(path)
    travel = TimeTravel(path, log)
    for number, expected in dumps.items():
        assert log.commit_of(versions[number]).number == number
        assert log.commit_of(versions[number] + 1).number == number
        past = travel.open(number)
        assert dump(past) == expected, f"commit {number}"
        past.close()
    assert not list(log.verify())
    travel.close()
    log.close()


def life(seed: int, steps: int) -> Iterator[tuple[str | tuple[str, tuple[object, ...]], ...]]:
    """A database's life: transactions of all sorts, the same for the same seed."""
    source = random.Random(seed)
    yield (
        "create table account (id integer primary key, balance, note)",
        "create table queue (id integer primary key autoincrement, body text)",
        "create table heap (a, b)",
        "create table odd (k text primary key, v)",
        "create table flat (k text primary key, v) without rowid",
        "create table audit (what, who)",
        "create trigger watch after update on account begin insert into audit values (new.balance, new.id); end",
        "create virtual table words using fts5(body)",
        "create index by_balance on account (balance)",
    )
    for step in range(steps):
        yield from _step(source, seed, step)
        if step % 14 == 13:
            yield ("vacuum",)


def _step(source: random.Random, seed: int, step: int) -> Iterator[tuple[str | tuple[str, tuple[object, ...]], ...]]:
    key = source.randrange(40)
    text = "".join(source.choice("abcdefghij ") for _ in range(source.randrange(60)))
    match source.randrange(13):
        case 0 | 1 | 2:
            yield (("insert or replace into account (id, balance, note) values (?, ?, ?)", (key, source.randrange(999), text)),)
        case 3 | 4:
            yield (
                ("update account set balance = balance + 1 where id % 7 = ?", (key % 7,)),
                "delete from queue where id % 9 = 0",
            )
        case 5:
            yield (("insert into queue (body) values (?)", (text,)), ("insert into words values (?)", (text,)))
        case 6:
            yield (("insert into heap values (?, ?)", (key, source.randbytes(source.choice([3, 900, 30_000])))),)
        case 7:
            yield (("insert into odd values (null, ?)", (text,)),)
        case 8:
            yield (("insert or replace into flat values (?, ?)", (text[:4], key)),)
        case 9:
            yield ("delete from heap where rowid % 2 = 0",) if step % 3 else ("delete from heap",)
        case 10:
            yield (f"create table extra_{seed}_{step} as select * from account",)
            yield (f"alter table extra_{seed}_{step} add column more default 5",)
        case 11:
            yield (f"alter table account add column c{seed}_{step}", "update account set note = note || 'x'")
        case _:
            yield (
                f"drop table if exists extra_{seed}_{source.randrange(step + 1)}",
                ("update words set body = body || ' x' where rowid = ?", (key,)),
            )
            yield (("insert into heap select ?, zeroblob(200) from account", (key,)),)
