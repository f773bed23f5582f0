"""The page log, written: commits from the write-ahead log into the side file, and where to go on after a close or a crash.

What must always hold is said in pagelog.py; this module is what keeps it. It must not know what a version stands for, and never
opens the database through SQL. It belongs to the one process that writes the database.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Final

import apsw

from retroact.engine.sqlite import wal
from retroact.engine.sqlite.pagefile import (
    CACHED_PAGES,
    CHUNK_VERSIONS,
    FORMAT,
    INSERT_CHUNK,
    INSERT_COMMIT,
    SUFFIX,
    Chain,
    Commit,
    Draft,
    SideFile,
    commit_row,
)
from retroact.engine.sqlite.queries import script
from retroact.engine.sqlite.sweep import Swept, forget_commits, give_back, shorten, sweep
from retroact.errors import NotADatabase

_BEGINNING: Final = "What the database was before is not known to it."
_BATCH: Final = 256  # commits at a time while catching up
_FRESH: Final = (0, 0)
_HEADER_BYTES: Final = 100


@dataclass(frozen=True, slots=True)
class LoggedCommit:
    """A commit as read from the write-ahead log, with what only the platform knows of it. Times in microseconds since 1970."""

    wal: wal.WalCommit
    version: int
    persisted_us: int


@dataclass(frozen=True, slots=True)
class Position:
    """How far the write-ahead log has been taken over: its generation (0, 0 before any) and the frames consumed of it."""

    salts: tuple[int, int]
    frames: int


@dataclass(frozen=True, slots=True)
class Identity:
    """What shows whether the main file was touched: its size in bytes and the time of its last change in nanoseconds."""

    size: int
    mtime_ns: int


def identity_of(database_path: str | os.PathLike[str]) -> Identity:
    """The identity of the main file as it is now. Raises OSError if there is none."""
    status = Path(database_path).stat()
    return Identity(status.st_size, status.st_mtime_ns)


class PageLogWriter:
    """The page log of a database, for the one process that writes the database. For use by one thread at a time.

    The order of things in that process: `catch_up` before the first write; `append` for commits as they happen; a passive
    checkpoint only when everything in the write-ahead log has been appended. To close cleanly: append, passive checkpoint,
    `note_closed()`, then truncate the write-ahead log, so that no program that looks at the database has anything to copy.
    """

    def __init__(self, database_path: str | os.PathLike[str], *, cached_pages: int = CACHED_PAGES) -> None:
        """Open or make the log of the existing database at `database_path`.

        Raises NotADatabase if there is no database, NewerDatabase if a later release wrote the log.
        """
        self.database_path = os.fspath(database_path)
        self._cached_pages = cached_pages
        # Through SQLite's own file layer: closing a descriptor of the main file in any other way would drop the locks that
        # the connections of this process hold on it.
        flags = apsw.SQLITE_OPEN_MAIN_DB | apsw.SQLITE_OPEN_READONLY
        self._main = apsw.VFSFile("", self.database_path, [flags, 0])
        page_size = _page_size(self._main.xRead(_HEADER_BYTES, 0), self.database_path)
        self._file = SideFile(self.database_path + SUFFIX, apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE)
        self._connection = self._file.connection
        self._prepare(page_size)
        self._meta = self._file.meta()
        self._page_size = page_size
        self._chains: OrderedDict[int, Chain] = OrderedDict()
        self._last = self._file.last_number()
        self._last_commit = self._file.commit(self._last) if self._last else None

    def close(self) -> None:
        """Close the log and the main file. Everything appended is durable already."""
        self._connection.close()
        self._main.xClose()

    @property
    def position(self) -> Position:
        """How far the write-ahead log has been taken over."""
        return Position((self._meta.salt_1, self._meta.salt_2), self._meta.frames)

    @property
    def last_commit(self) -> Commit:
        """The newest commit logged. Raises ValueError before the first `catch_up`."""
        if self._last_commit is None:
            message = "catch_up() comes first: it begins the log"
            raise ValueError(message)
        return self._last_commit

    def next_frame(self, header: wal.WalHeader) -> int:
        """The first frame not yet taken over, in a write-ahead log that begins with `header`."""
        return self.position.frames if header.salts == self.position.salts else 0

    def append(self, commits: Sequence[LoggedCommit]) -> None:
        """Log commits, in order, in one durable transaction. When it returns, what they changed may be checkpointed.

        Raises ValueError if they do not continue the position, or if versions go backwards.
        """
        if commits:
            self._store(commits, unsettled=self._meta.unsettled)

    def catch_up(self, wal_path: str | os.PathLike[str], version_at: Callable[[int], int]) -> int:
        """Bring the log up to the database, before anything is written: after a clean close, a crash, or for the first time.

        Takes over the complete commits of the write-ahead log; their number is returned. If something changed the database
        while nobody logged, a new base begins and earlier states are given up. Then `version_at(number)` is asked for the
        trace version of each commit taken over; it may travel to that commit to find out.
        """
        try:
            fd = os.open(wal_path, os.O_RDONLY)
        except FileNotFoundError:
            taken = self._take_over(None, -1)
        else:
            try:
                taken = self._take_over(wal.read_header(fd), fd)
            finally:
                os.close(fd)
        self._settle(version_at)
        return taken

    def note_closed(self, identity: Identity | None = None) -> None:
        """Note what the main file is (in `identity`, or as it is now) when nothing will change it until the next opening.

        To be called after the last checkpoint, when all of the write-ahead log is both logged and in the main file.
        """
        identity = identity or identity_of(self.database_path)
        with self._transaction():
            self._update_meta(main_size=identity.size, main_mtime=identity.mtime_ns)

    # --- forgetting

    def begin_at(self, number: int, reason: str) -> None:
        """Give up the states before commit `number`, which is the base from now on. `sweep` then clears what they needed."""
        assert self._base <= number <= self._last, "the base moves forward, and not beyond what is logged"
        with self._transaction():
            self._update_meta(base=number, reason=reason)

    def sweep(self, page: int, count: int) -> Swept:
        """Clear `count` pages, from number `page` on, of what is older than the base."""
        with self._transaction():
            return sweep(self._connection, self._base, page, count, self._forget)

    def weight(self) -> int:
        """Bytes of the side file in use."""
        side = self._connection
        return (side.pragma("page_count") - side.pragma("freelist_count")) * side.pragma("page_size")

    def _forget(self, page: int) -> None:
        self._chains.pop(page, None)

    def forget_commits(self) -> bool:
        """Clear some commits older than the base; whether there may be more."""
        with self._transaction():
            return forget_commits(self._connection, self._base)

    def give_back(self, pages: int) -> bool:
        """Give some free pages of the side file back; whether there may be more."""
        more = give_back(self._connection, pages)
        if not more:
            shorten(self._connection)
        return more

    # --- the side file

    def _prepare(self, page_size: int) -> None:
        self._connection.execute("pragma page_size = 8192").fetchall()
        self._connection.execute("pragma auto_vacuum = incremental").fetchall()
        self._connection.execute("pragma journal_mode = wal").fetchall()
        self._connection.execute("pragma synchronous = full").fetchall()
        self._connection.execute("begin immediate")
        if not self._connection.table_exists("main", "pagelog_meta"):
            self._connection.execute(script("pagelog.sql")).fetchall()
            self._connection.execute(
                "insert into pagelog_meta values (1, ?, ?, null, ?, 0, 0, 0, null, null, null)",
                (FORMAT, page_size, _BEGINNING),
            )
        self._connection.execute("commit")

    @contextmanager
    def _transaction(self) -> Generator[None]:
        self._connection.execute("begin immediate")
        try:
            yield
            self._connection.execute("commit")
        except BaseException:
            # The cached chains may have run ahead of what is stored.
            self._chains.clear()
            if self._connection.in_transaction:
                self._connection.execute("rollback")
            self._meta = self._file.meta()
            raise

    def _update_meta(self, **changes: int | str | None) -> None:
        assignments = ", ".join(f"{name} = ?" for name in changes)
        self._connection.execute(f"update pagelog_meta set {assignments}", tuple(changes.values()))  # noqa: S608
        self._meta = self._meta._replace(**changes)

    # --- commits into chunks

    def _store(self, commits: Sequence[LoggedCommit], *, unsettled: int | None) -> None:
        self._check_continues(commits)
        with self._transaction():
            last = self._write(commits)
            moved = _moved_to(commits[-1].wal)
            self._update_meta(**moved, main_size=None, main_mtime=None, unsettled=unsettled)
        self._last_commit, self._last = last, last.number

    def _check_continues(self, commits: Sequence[LoggedCommit]) -> None:
        version = self.last_commit.version
        position = self.position
        for commit in commits:
            expected = position.frames if commit.wal.salts == position.salts else 0
            if commit.wal.first_frame != expected:
                message = f"the commit begins at frame {commit.wal.first_frame}, not at {expected}"
                raise ValueError(message)
            if commit.version < version:
                message = f"version {commit.version} comes after version {version}"
                raise ValueError(message)
            version = commit.version
            position = Position(commit.wal.salts, commit.wal.end_frame)

    def _write(self, commits: Sequence[LoggedCommit]) -> Commit:
        """Write commits after the last one, inside a transaction. The last of them."""
        pages = self.last_commit.pages
        changes: dict[int, list[tuple[int, bytes]]] = {}
        before: dict[int, int] = {}  # page -> the size of the database before its first change in this batch
        rows: list[tuple[int, int, int, int, int, int]] = []
        last = self.last_commit
        for number, logged in enumerate(commits, self._last + 1):
            for page, image in logged.wal.frames:
                if page not in changes:
                    changes[page] = []
                    before[page] = pages
                changes[page].append((number, image))
            for page in range(logged.wal.database_pages + 1, pages + 1):
                changes.setdefault(page, [])
                before.setdefault(page, pages)
            pages = logged.wal.database_pages
            last = Commit(
                number=number,
                version=logged.version,
                pages=pages,
                persisted_us=logged.persisted_us,
                changed_pages=len(logged.wal.frames),
            )
            rows.append(commit_row(last))
        for page in sorted(changes):
            # Row by row: compressing and storing each let other threads run.
            self._connection.executemany(INSERT_CHUNK, self._chunks(page, changes[page], page <= before[page]))
        self._connection.executemany(INSERT_COMMIT, rows)
        return last

    def _chunks(self, page: int, versions: Sequence[tuple[int, bytes]], existed: bool) -> Iterator[tuple[int, int, int, int, bytes]]:
        """The rows for new versions of a page. `existed`: whether the base may have it, if the log does not."""
        draft: Draft | None = None
        chain = self._chain(page)
        if chain is None:
            chain = self._chains[page] = Chain(b"")
            if existed:
                chain.image = self._main_image(page)
                draft = Draft(page, self._base, None, chain.image)
        for number, image in versions:
            if draft is not None and draft.versions >= CHUNK_VERSIONS:
                yield draft.seal(chain)
                draft = None
            if draft is not None:
                draft.add(number, chain.image, image)
            else:
                whole = chain.chunks == 0 or chain.is_long()
                draft = Draft(page, number, None if whole else chain.image, image)
            chain.image = image
        if draft is not None:
            yield draft.seal(chain)

    def _chain(self, page: int) -> Chain | None:
        """The newest state of a page in the log, from memory or rebuilt; None if it was never logged."""
        chain = self._chains.get(page)
        if chain is not None:
            self._chains.move_to_end(page)
            return chain
        chain = self._file.rebuild(page, self._last, self._page_size)
        if chain is not None:
            self._chains[page] = chain
        self._trim()
        return chain

    def _trim(self) -> None:
        while len(self._chains) > self._cached_pages:
            self._chains.popitem(last=False)

    @property
    def _base(self) -> int:
        assert self._meta.base is not None, "catch_up() begins the log"
        return self._meta.base

    def _main_image(self, page: int) -> bytes:
        """A page that was never logged, so that the main file has it as it was when logging began; zeros if it ends before."""
        image = self._main.xRead(self._page_size, (page - 1) * self._page_size)
        return bytes(image).ljust(self._page_size, b"\0")

    # --- catching up

    def _take_over(self, header: wal.WalHeader | None, fd: int) -> int:
        if header is not None and next(wal.read_commits(fd, header, 0), None) is None:
            # A header alone was written by whoever was about to commit, and nothing of it is in the main file. Unless it
            # proves that our own generation was used up, it says nothing.
            header = header if header.salts[0] == self._successor() else None
        gap = self._gap(header, fd)
        if gap is not None:
            self._begin_base(gap, header, fd)
            return 0
        taken = 0 if header is None else self._take_over_commits(header, fd)
        with self._transaction():
            self._note_start(header)
        return taken

    def _take_over_commits(self, header: wal.WalHeader, fd: int) -> int:
        persisted_us = os.fstat(fd).st_mtime_ns // 1000
        unsettled = self._last + 1 if self._meta.unsettled is None else self._meta.unsettled
        commits = wal.read_commits(fd, header, self.next_frame(header))
        taken = 0
        while batch := list(islice(commits, _BATCH)):
            version = self.last_commit.version
            self._store([LoggedCommit(commit, version, persisted_us) for commit in batch], unsettled=unsettled)
            taken += len(batch)
        return taken

    def _successor(self) -> int:
        """The first salt of the next generation: SQLite adds one to it and draws the second when it begins the file again."""
        return (self._meta.salt_1 + 1) & 0xFFFFFFFF

    def _gap(self, header: wal.WalHeader | None, fd: int) -> str | None:
        """Why the log cannot be continued, or None if it can. Whatever cannot be explained is a gap."""
        meta, position = self._meta, self.position
        if meta.base is None:
            return _BEGINNING
        noted = meta.main_size is not None and meta.main_mtime is not None
        if noted and identity_of(self.database_path) == Identity(meta.main_size or 0, meta.main_mtime or 0):
            return None  # nothing was checkpointed since, so all there is to know is in the write-ahead log
        if header is None:
            return "Before that, another program emptied or removed the write-ahead log, or replaced the database."
        if header.salts == position.salts:
            return self._gap_in_generation(header, fd, noted)
        if not noted and position.salts != _FRESH and header.salts[0] == self._successor():
            return None
        return "Before that, another program changed the database while retroact was not running."

    def _gap_in_generation(self, header: wal.WalHeader, fd: int, noted: bool) -> str | None:
        frames = self._meta.frames
        if frames and not wal.has_frame(fd, header, frames - 1):
            return "Before that, the write-ahead log was cut short."
        if noted and next(wal.read_commits(fd, header, frames), None) is not None:
            return "Before that, another program changed the database while retroact was closed."
        return None

    def _begin_base(self, reason: str, header: wal.WalHeader | None, fd: int) -> None:
        """Give up all states so far, and begin again with the one that main file and write-ahead log make up now.

        The log may have been copied to the main file in part, and then only the state after its last commit is certain: so what
        it holds becomes one commit, the base.
        """
        images: dict[int, bytes] = {}
        pages = _database_pages(self._main.xRead(_HEADER_BYTES, 0), self._main.xFileSize(), self._page_size)
        position: dict[str, int] = {}
        for commit in () if header is None else wal.read_commits(fd, header, 0):
            images.update(commit.frames)
            pages = commit.database_pages
            position = _moved_to(commit)
        number = self._last + 1
        images = {page: image for page, image in images.items() if page <= pages}
        base = Commit(number=number, version=0, pages=pages, persisted_us=0, changed_pages=len(images))
        with self._transaction():
            self._connection.execute("delete from pagelog_chunk")
            self._connection.execute("delete from pagelog_commit")
            self._chains.clear()
            for page, image in sorted(images.items()):
                chain = self._chains[page] = Chain(image)
                self._connection.execute(INSERT_CHUNK, Draft(page, number, None, image).seal(chain))
                self._trim()
            self._connection.execute(INSERT_COMMIT, commit_row(base))
            self._update_meta(base=number, reason=reason, unsettled=number, **position)
            self._note_start(header)
        self._last_commit, self._last = base, number

    def _note_start(self, header: wal.WalHeader | None) -> None:
        """Note what the next start may rely on if this process ends before it appends anything.

        With an empty write-ahead log nobody can change the main file before the first append, so its identity tells. With one
        that is not, the salts do, and a checkpoint may change the main file at any time.
        """
        if header is None:
            now = identity_of(self.database_path)
            self._update_meta(salt_1=0, salt_2=0, frames=0, main_size=now.size, main_mtime=now.mtime_ns)
        else:
            self._update_meta(main_size=None, main_mtime=None)

    def _settle(self, version_at: Callable[[int], int]) -> None:
        """Fill in the versions of the commits that were taken over without knowing them."""
        if self._meta.unsettled is None:
            return
        commits: list[Commit] = []
        for number in range(self._meta.unsettled, self._last + 1):
            commits.append(replace(self._file.commit(number), version=version_at(number)))
        with self._transaction():
            for commit in commits:
                row = commit_row(commit)
                self._connection.execute("update pagelog_commit set version = ?, crc = ? where n = ?", (row[1], row[5], row[0]))
            self._update_meta(unsettled=None)
        self._last_commit = commits[-1] if commits else self._last_commit


def _moved_to(commit: wal.WalCommit) -> dict[str, int]:
    """The columns of the meta row that say that the write-ahead log was taken over up to the end of a commit."""
    return {"salt_1": commit.salts[0], "salt_2": commit.salts[1], "frames": commit.end_frame}


def _page_size(header: bytes, database_path: str) -> int:
    """The page size in bytes, from the first 100 bytes of a database."""
    if len(header) < _HEADER_BYTES or header[:16] != b"SQLite format 3\0":
        raise NotADatabase(path=database_path, problem="its first bytes are not those of a SQLite database")
    size = int.from_bytes(header[16:18], "big")
    return 65536 if size == 1 else size


def _database_pages(header: bytes, file_size: int, page_size: int) -> int:
    """The size of a database in pages, found as SQLite finds it: its header, if that is up to date, or the file."""
    in_header = int.from_bytes(header[28:32], "big")
    return in_header if in_header and header[24:28] == header[92:96] else file_size // page_size
