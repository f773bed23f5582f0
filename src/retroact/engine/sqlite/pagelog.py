"""The page log: every version of every page that a SQLite database had, commit by commit, in a file of its own beside it.

It is written by the one process that writes the database, from what it reads in the write-ahead log, and read by any number of
processes at the same time. It must not know functions, runs, or what a trace record looks like: a version is a number to it, and a
page is bytes. It never opens the database through SQL.

Invariants:

1. Log before checkpoint. A commit is in the page log, durably, before any page of it is copied to the main file. So a page the log
   does not know still stands in the main file as it stood when logging began, and a reader that reads the main file first and
   asks the log afterwards gets the right image whoever writes meanwhile (see timetravel.py).
2. The first version of a page is its image as of the base: read from the main file just before its first change is logged, or
   before the database shrinks below it.
3. Commits are numbered without holes from the base, and pages, versions and the position in the write-ahead log move in one
   transaction of the side file. What was logged is never changed, save that a gap removes all of it.
4. A gap is a change that nobody logged. It is never bridged: a new base begins after it, and the states before it are refused.
5. Every row carries a checksum over all of itself, its key included; that of a chunk is seeded with that of the page's chunk
   before it. An edited row is reported as DamagedPage when it is read; a missing one too, at the latest by `verify()`.

A chunk is a run of versions of one page, compressed: the whole image or a patch for its first commit, and then, for each further
one, how many commits later it is (4 bytes) and a patch. A patch is the number of changed runs, (offset, length - 1) of each, all
2 bytes, and then the new bytes of all runs. The compressor's dictionary is the image the chunk continues from: what SQLite does
to a page is mostly moving bytes that were there, and appending rows that look like the rows before them.
"""

from __future__ import annotations

import os
import re
import struct
import threading
import zlib
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import resources
from itertools import islice
from typing import Final, NamedTuple, cast

import apsw

from retroact.engine.sqlite import wal
from retroact.errors import BeyondHistory, DamagedPage, NewerDatabase, NotADatabase

SUFFIX: Final = "-pages"
FORMAT: Final = 1

_BEGINNING = "What the database was before is not known to it."
_BATCH = 256  # commits at a time while catching up
_LEVEL = 6
_CHUNK_VERSIONS = 32  # a reader decodes half a chunk in vain on average
_CHAIN_CHUNKS = 24
_CHAIN_VERSIONS = 160
_CHAIN_WEIGHT = 2  # patches may grow to this many times their keyframe
_CACHED_PAGES = 2000
_BLOCK = 256
_FRESH = (0, 0)
_WHOLE = 1
_PATCH = 0

_SELECT_CHAIN = (
    "select place, last, kind, crc, data from pagelog_chunk where place between ?1 and ?2 order by place desc"
)
_SELECT_COMMIT = "select n, version, pages, persisted_us, changed, crc from pagelog_commit where n = ?1"
_SELECT_META = "select format, page_size, base, reason, salt_1, salt_2, frames, main_size, main_mtime, unsettled from pagelog_meta"
_INSERT_CHUNK = "insert into pagelog_chunk (place, last, kind, crc, data) values (?, ?, ?, ?, ?)"
_INSERT_COMMIT = "insert into pagelog_commit (n, version, pages, persisted_us, changed, crc) values (?, ?, ?, ?, ?, ?)"

_TYPICAL = (
    b'indexsqlite_autoindex_tablesqlite_sequence(name,seq)CREATE TABLE  (id INTEGER PRIMARY KEY,  TEXT NOT NULL UNIQUE'
    b'{"items":[{"id":1,"name":"","status":"ok","amount":100,"error":null,"result":true,"args":[1,2,3]}]}'
    b'[[1,{"i":18,"b":1001},1,"update  set  =  + 1 where id = ?"],[2,{"i":24,"b":999},0,"insert into  values (?, ?)"],["'
)


# --- values -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """One commit of the database, and so one past state of it.

    `version` is the last trace version the state contains; `pages` its size in pages; `persisted_us` microseconds since 1970.
    """

    number: int
    version: int
    pages: int
    persisted_us: int
    changed_pages: int


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


class _Meta(NamedTuple):
    format: int
    page_size: int
    base: int | None
    reason: str
    salt_1: int
    salt_2: int
    frames: int
    main_size: int | None
    main_mtime: int | None
    unsettled: int | None


class _Row(NamedTuple):
    place: int
    last: int
    kind: int
    crc: int
    data: bytes

    @property
    def page(self) -> int:
        return self.place >> 32

    @property
    def first(self) -> int:
        return self.place & 0xFFFFFFFF


def identity_of(database_path: str | os.PathLike[str]) -> Identity:
    """The identity of the main file as it is now. Raises OSError if there is none."""
    status = os.stat(database_path)
    return Identity(status.st_size, status.st_mtime_ns)


# --- patches ------------------------------------------------------------------------------------------------------------

_RUN = re.compile(rb"[^\0]+(?:\0{1,7}[^\0]+)*")  # a new run costs 4 bytes, and some of the compressor's patience
_COUNT = struct.Struct("<H")
_DELTA = struct.Struct("<I")


def encode_patch(old: bytes, new: bytes) -> bytes:
    """What must be written over `old` to make it `new`; both are pages of the same size, of at most 65,536 bytes."""
    runs: list[int] = []
    parts: list[bytes] = []
    for start, end in _changed_blocks(old, new):
        mixed = int.from_bytes(old[start:end], "little") ^ int.from_bytes(new[start:end], "little")
        for run in _RUN.finditer(mixed.to_bytes(end - start, "little")):
            first, last = start + run.start(), start + run.end()
            runs += (first, last - first - 1)
            parts.append(new[first:last])
    return struct.pack(f"<H{len(runs)}H", len(runs) // 2, *runs) + b"".join(parts)


def apply_patch(image: bytearray, patches: bytes, at: int = 0) -> int:
    """Write the patch that begins at `at` in `patches` over `image`. The offset where the patch ends."""
    (count,) = _COUNT.unpack_from(patches, at)
    runs = struct.unpack_from(f"<{2 * count}H", patches, at + 2)
    at += 2 + 4 * count
    for index in range(0, 2 * count, 2):
        offset = runs[index]
        end = at + runs[index + 1] + 1
        image[offset : offset + end - at] = patches[at:end]
        at = end
    return at


def _changed_blocks(old: bytes, new: bytes) -> Iterator[tuple[int, int]]:
    """The stretches of whole blocks in which two pages differ. Comparing first is ten times as fast as combining all of it."""
    start = None
    for offset in range(0, len(new), _BLOCK):
        if old[offset : offset + _BLOCK] == new[offset : offset + _BLOCK]:
            if start is not None:
                yield start, offset
                start = None
        elif start is None:
            start = offset
    if start is not None:
        yield start, len(new)


# --- chunks -------------------------------------------------------------------------------------------------------------


def _compress(plain: bytes, dictionary: bytes) -> bytes:
    packer = zlib.compressobj(_LEVEL, zlib.DEFLATED, -15, 8, zlib.Z_DEFAULT_STRATEGY, dictionary)
    return packer.compress(plain) + packer.flush()


def _decompress(data: bytes, dictionary: bytes) -> bytes:
    return zlib.decompressobj(-15, dictionary).decompress(data)


def _checksum(key: Iterable[object], data: bytes = b"") -> int:
    """A signed 32-bit number, which SQLite stores in four bytes."""
    return zlib.crc32(data, zlib.crc32(",".join(map(str, key)).encode())) - (1 << 31)


def _place(page: int, number: int) -> int:
    return page << 32 | number


def _commit_row(commit: Commit) -> tuple[int, int, int, int, int, int]:
    row = (commit.number, commit.version, commit.pages, commit.persisted_us, commit.changed_pages)
    return (*row, _checksum(row))


class _Chain:
    """What is known of a page at its newest version: enough to continue it. Mutable, one per page in the writer's cache."""

    __slots__ = ("chunks", "crc", "image", "patch_bytes", "versions", "whole_bytes")

    def __init__(self, image: bytes) -> None:
        self.image = image
        self.crc = 0
        self.chunks = 0
        self.versions = 0
        self.patch_bytes = 0
        self.whole_bytes = 0

    def is_long(self) -> bool:
        """Whether the next chunk should begin with the whole image, so that reading the page stays quick."""
        heavy = self.chunks >= _CHAIN_CHUNKS // 3 and self.patch_bytes > _CHAIN_WEIGHT * self.whole_bytes
        return heavy or self.chunks >= _CHAIN_CHUNKS or self.versions >= _CHAIN_VERSIONS

    def extend(self, kind: int, versions: int, size: int) -> None:
        if kind == _WHOLE:
            self.chunks, self.versions, self.patch_bytes, self.whole_bytes = 0, 0, 0, size
        else:
            self.patch_bytes += size
        self.chunks += 1
        self.versions += versions


class _Draft:
    """A chunk while versions are added to it."""

    __slots__ = ("_dictionary", "_parts", "first", "kind", "last", "page", "versions")

    def __init__(self, page: int, number: int, old: bytes | None, image: bytes) -> None:
        """Begin with `image` as of commit `number`: as a patch to `old`, or whole if that is None."""
        self.page = page
        self.first = self.last = number
        self.kind = _WHOLE if old is None else _PATCH
        self.versions = 1
        self._dictionary = _TYPICAL if old is None else old
        self._parts = [image if old is None else encode_patch(old, image)]

    def add(self, number: int, old: bytes, image: bytes) -> None:
        self._parts += (_DELTA.pack(number - self.last), encode_patch(old, image))
        self.last = number
        self.versions += 1

    def seal(self, chain: _Chain) -> tuple[int, int, int, int, bytes]:
        """The row of the chunk, which from now on is the last of `chain`."""
        data = _compress(b"".join(self._parts), self._dictionary)
        key = (_place(self.page, self.first), self.last, self.kind)
        chain.crc = _checksum((*key, chain.crc), data)
        chain.extend(self.kind, self.versions, len(data))
        return (*key, chain.crc, data)


def _unpack(row: _Row, image: bytes, page_size: int, until: int) -> tuple[bytes, list[int]]:
    """The image after the versions of a chunk up to commit `until`, and the commits of these versions."""
    if row.kind == _WHOLE:
        plain = _decompress(row.data, _TYPICAL)
        result = bytearray(plain[:page_size])
        at = page_size
    else:
        plain = _decompress(row.data, image)
        result = bytearray(image)
        at = apply_patch(result, plain)
    number = row.first
    numbers = [number]
    while at < len(plain):
        (delta,) = _DELTA.unpack_from(plain, at)
        number += delta
        if number > until:
            break
        at = apply_patch(result, plain, at + _DELTA.size)
        numbers.append(number)
    return bytes(result), numbers


# --- the side file, as reader and writer share it -------------------------------------------------------------------------


class _SideFile:
    """The open side file: its rows, checked. Not for use by two threads at once."""

    def __init__(self, path: str, flags: int) -> None:
        self.path = path
        self.connection = apsw.Connection(path, flags=flags)
        self.connection.set_busy_timeout(10_000)

    def meta(self) -> _Meta:
        meta = _Meta(*cast("_Meta", self.connection.execute(_SELECT_META).fetchall()[0]))
        if meta.format > FORMAT:
            raise NewerDatabase(path=self.path, found=meta.format, known=FORMAT)
        return meta

    def commit(self, number: int) -> Commit:
        """The row of commit `number`, checked."""
        try:
            rows = self.connection.execute(_SELECT_COMMIT, (number,)).fetchall()
        except apsw.CorruptError as error:
            raise self.damage("count", number, f"cannot be read ({error})") from error
        if not rows:
            raise self.damage("count", number, "is missing")
        row = rows[0]
        if _checksum(row[:5]) != row[5]:
            raise self.damage("count", number, "was changed after it was written")
        _, version, pages, persisted_us, changed = cast("tuple[int, int, int, int, int]", row[:5])
        return Commit(
            number=number, version=version, pages=pages, persisted_us=persisted_us, changed_pages=changed
        )

    def last_number(self) -> int:
        """The number of the newest commit, 0 if there is none."""
        number = self.connection.execute("select max(n) from pagelog_commit").fetchall()[0][0]
        return cast("int | None", number) or 0

    def chain(self, page: int, number: int) -> tuple[list[_Row], int]:
        """The chunks needed to know `page` as of commit `number`, oldest first, and the checksum the oldest is seeded with."""
        rows: list[_Row] = []
        seed = 0
        # The cursor must be closed before anything else is asked: an open one holds on to an old state of the side file.
        cursor = self.connection.execute(_SELECT_CHAIN, (_place(page, 0), _place(page, number)))
        try:
            for values in cursor:
                row = _Row(*cast("_Row", values))
                if rows and rows[-1].kind == _WHOLE:
                    seed = row.crc
                    break
                rows.append(row)
        except apsw.CorruptError as error:
            raise self.damage(page, number, f"cannot be read ({error})") from error
        finally:
            cursor.close()
        rows.reverse()
        return rows, seed

    def rebuild(self, page: int, number: int, page_size: int) -> _Chain | None:
        """The page as of commit `number`, or None if the log does not know it."""
        rows, seed = self.chain(page, number)
        if not rows:
            return None
        if rows[0].kind != _WHOLE:
            raise self.damage(page, rows[0].first, "has no whole image to begin with")
        chain = _Chain(b"")
        chain.crc = seed
        for row in rows:
            problem = self.problem(row, chain.crc)
            if problem:
                raise self.damage(page, row.first, problem)
            try:
                chain.image, numbers = _unpack(row, chain.image, page_size, number)
            except (zlib.error, struct.error) as error:
                raise self.damage(page, row.first, f"cannot be decoded ({error})") from error
            chain.crc = row.crc
            chain.extend(row.kind, len(numbers), len(row.data))
        return chain

    def problem(self, row: _Row, seed: int) -> str | None:
        if not isinstance(row.data, bytes):  # pyright: ignore[reportUnnecessaryIsInstance] - an edited row may hold anything
            return "was changed after it was written"
        if _checksum((row.place, row.last, row.kind, seed), row.data) != row.crc:
            return "was changed after it was written, or what was before it is missing"
        return None

    def damage(self, page: int | str, number: int, problem: str) -> DamagedPage:
        return DamagedPage(path=self.path, page=page, commit=number, problem=problem)


# --- reading ------------------------------------------------------------------------------------------------------------


class PageLog:
    """The page log of a database, for reading. Safe beside a writer in another process, and from several threads."""

    def __init__(self, database_path: str | os.PathLike[str], *, cached_pages: int = _CACHED_PAGES) -> None:
        """Open the log of the database at `database_path`, keeping up to `cached_pages` past page images in memory.

        Raises apsw.CantOpenError if the database has no page log, NewerDatabase if a later release wrote it.
        """
        self.database_path = os.fspath(database_path)
        self._file = _SideFile(self.database_path + SUFFIX, apsw.SQLITE_OPEN_READONLY)
        self._lock = threading.Lock()
        self._images: OrderedDict[tuple[int, int], bytes] = OrderedDict()
        self._cached_pages = cached_pages
        self.page_size = self._file.meta().page_size

    def close(self) -> None:
        """Close the log. Connections that travel with it can then no longer read."""
        with self._lock:
            self._file.connection.close()

    @property
    def horizon(self) -> Commit:
        """The first commit that can be travelled to. Raises BeyondHistory if the log holds none yet."""
        with self._lock:
            return self._file.commit(self._base(self._file.meta(), "any"))

    @property
    def last_commit(self) -> Commit:
        """The newest commit whose version is known. Raises BeyondHistory if the log holds none yet."""
        with self._lock, self._snapshot() as meta:
            return self._file.commit(self._last(meta, "any"))

    def commit(self, number: int) -> Commit:
        """Commit `number`. Raises BeyondHistory if the log begins after it, ValueError if it ends before it, DamagedPage."""
        with self._lock, self._snapshot() as meta:
            if number < self._base(meta, f"of commit {number}"):
                raise self._beyond(meta, f"of commit {number}")
            if number > self._file.last_number():
                message = f"commit {number} is not in the page log yet"
                raise ValueError(message)
            return self._file.commit(number)

    def commit_of(self, version: int) -> Commit:
        """The newest commit whose state contains no version after `version`; the one after it is `commit(number + 1)`.

        Raises BeyondHistory if the log begins after that version, DamagedPage if a row on the way was changed.
        """
        with self._lock, self._snapshot() as meta:
            first, last = self._base(meta, version), self._last(meta, version)
            low, high = self._file.commit(first), self._file.commit(last)
            if version < low.version:
                raise self._beyond(meta, version)
            if version >= high.version:
                return high
            while low.number + 1 < high.number:
                middle = self._file.commit(_guess(low, high, version))
                if middle.version <= version:
                    low = middle
                else:
                    high = middle
            return low

    def page(self, page_number: int, commit_number: int) -> bytes | None:
        """The page as of the commit, or None: never changed since the base, so that the main file has it.

        Raises BeyondHistory if the log begins after the commit by now, DamagedPage if what is stored was changed.
        """
        key = (page_number, commit_number)
        with self._lock:
            image = self._images.get(key)
            if image is not None:
                self._images.move_to_end(key)
                return image
            chain = self._file.rebuild(page_number, commit_number, self.page_size)
            if chain is None:
                meta = self._file.meta()
                if commit_number < self._base(meta, f"of commit {commit_number}"):
                    raise self._beyond(meta, f"of commit {commit_number}")
                return None
            self._images[key] = chain.image
            if len(self._images) > self._cached_pages:
                self._images.popitem(last=False)
            return chain.image

    def verify(self) -> Iterator[DamagedPage]:
        """Every problem of the log, as an error to show or to raise. Reads all of it, as of the moment of the call."""
        with self._lock:
            file = _SideFile(self._file.path, apsw.SQLITE_OPEN_READONLY)
        try:
            file.connection.execute("begin")
            yield from _verify(file)
        except apsw.CorruptError as error:
            yield file.damage("count", 0, f"cannot be read ({error})")
        finally:
            file.connection.close()

    @contextmanager
    def _snapshot(self) -> Iterator[_Meta]:
        """One unchanging state of the side file for several questions, with its meta row."""
        self._file.connection.execute("begin")
        try:
            yield self._file.meta()
        finally:
            self._file.connection.execute("commit")

    def _base(self, meta: _Meta, asked: int | str) -> int:
        if meta.base is None:
            raise self._beyond(meta, asked)
        return meta.base

    def _last(self, meta: _Meta, asked: int | str) -> int:
        last = meta.unsettled - 1 if meta.unsettled is not None else self._file.last_number()
        if meta.base is None or last < meta.base:
            raise self._beyond(meta, asked)
        return last

    def _beyond(self, meta: _Meta, asked: int | str) -> BeyondHistory:
        horizon = "?" if meta.base is None else self._file.commit(meta.base).version
        return BeyondHistory(version=asked, database=self.database_path, horizon=horizon, reason=meta.reason)


def _guess(low: Commit, high: Commit, version: int) -> int:
    """A number between two commits, near where `version` would be if versions were spread evenly, which they mostly are."""
    share = (version - low.version) * (high.number - low.number) // (high.version - low.version)
    return min(max(low.number + share, low.number + 1), high.number - 1)


def _verify(file: _SideFile) -> Iterator[DamagedPage]:
    """Check all chunks in order, then that every commit has as many page versions as it says."""
    meta = file.meta()
    found: Counter[int] = Counter()
    page, seed, image = 0, 0, b""
    rows = file.connection.execute("select place, last, kind, crc, data from pagelog_chunk order by place")
    for values in rows:
        row = _Row(*cast("_Row", values))
        if row.page != page:
            page, seed, image = row.page, 0, b""
        problem = file.problem(row, seed)
        seed = row.crc
        if problem:
            yield file.damage(page, row.first, problem)
            continue
        try:
            image, numbers = _unpack(row, image, meta.page_size, row.last)
        except (zlib.error, struct.error) as error:
            yield file.damage(page, row.first, f"cannot be decoded ({error})")
            continue
        found.update(numbers)
    for number in range(meta.base or 1, file.last_number() + 1):
        try:
            commit = file.commit(number)
        except DamagedPage as damage:
            yield damage
            continue
        # The base has more: the first versions of pages that were changed only later.
        if found[number] < commit.changed_pages or (found[number] > commit.changed_pages and number != meta.base):
            yield file.damage("count", number, f"should be {commit.changed_pages}, not {found[number]}")


# --- writing ------------------------------------------------------------------------------------------------------------


class PageLogWriter:
    """The page log of a database, for the one process that writes the database. For use by one thread at a time.

    The order of things in that process: `catch_up` before the first write; `append` for commits as they happen; a passive
    checkpoint only when everything in the write-ahead log has been appended. To close cleanly: append, passive checkpoint,
    `note_closed()`, then truncate the write-ahead log, so that no program that looks at the database has anything to copy.
    """

    def __init__(self, database_path: str | os.PathLike[str], *, cached_pages: int = _CACHED_PAGES) -> None:
        """Open or make the log of the existing database at `database_path`.

        Raises NotADatabase if there is no database, NewerDatabase if a later release wrote the log.
        """
        self.database_path = os.fspath(database_path)
        self._cached_pages = cached_pages
        # Through SQLite's own file layer: closing a descriptor of the main file in any other way would drop the locks that
        # the connections of this process hold on it.
        flags = apsw.SQLITE_OPEN_MAIN_DB | apsw.SQLITE_OPEN_READONLY
        self._main = apsw.VFSFile("", self.database_path, [flags, 0])
        page_size = _page_size(self._main.xRead(100, 0), self.database_path)
        self._file = _SideFile(
            self.database_path + SUFFIX, apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE
        )
        self._connection = self._file.connection
        self._prepare(page_size)
        self._meta = self._file.meta()
        self._page_size = page_size
        self._chains: OrderedDict[int, _Chain] = OrderedDict()
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

    # --- the side file

    def _prepare(self, page_size: int) -> None:
        self._connection.execute("pragma page_size = 8192").fetchall()
        self._connection.execute("pragma journal_mode = wal").fetchall()
        self._connection.execute("pragma synchronous = full").fetchall()
        self._connection.execute("begin immediate")
        if not self._connection.table_exists("main", "pagelog_meta"):
            schema = resources.files("retroact.engine.sqlite").joinpath("pagelog.sql").read_text("utf-8")
            self._connection.execute(schema).fetchall()
            self._connection.execute(
                "insert into pagelog_meta values (1, ?, ?, null, ?, 0, 0, 0, null, null, null)",
                (FORMAT, page_size, _BEGINNING),
            )
        self._connection.execute("commit")

    @contextmanager
    def _transaction(self) -> Iterator[None]:
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
            rows.append(_commit_row(last))
        for page in sorted(changes):
            # Row by row: compressing and storing each let other threads run.
            self._connection.executemany(_INSERT_CHUNK, self._chunks(page, changes[page], page <= before[page]))
        self._connection.executemany(_INSERT_COMMIT, rows)
        return last

    def _chunks(
        self, page: int, versions: Sequence[tuple[int, bytes]], existed: bool
    ) -> Iterator[tuple[int, int, int, int, bytes]]:
        """The rows for new versions of a page. `existed`: whether the base may have it, if the log does not."""
        draft: _Draft | None = None
        chain = self._chain(page)
        if chain is None:
            chain = self._chains[page] = _Chain(b"")
            if existed:
                chain.image = self._main_image(page)
                draft = _Draft(page, self._base, None, chain.image)
        for number, image in versions:
            if draft is not None and draft.versions >= _CHUNK_VERSIONS:
                yield draft.seal(chain)
                draft = None
            if draft is not None:
                draft.add(number, chain.image, image)
            else:
                whole = chain.chunks == 0 or chain.is_long()
                draft = _Draft(page, number, None if whole else chain.image, image)
            chain.image = image
        if draft is not None:
            yield draft.seal(chain)

    def _chain(self, page: int) -> _Chain | None:
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
            if position.frames and not wal.has_frame(fd, header, position.frames - 1):
                return "Before that, the write-ahead log was cut short."
            if noted and next(wal.read_commits(fd, header, position.frames), None) is not None:
                return "Before that, another program changed the database while retroact was closed."
            return None
        if not noted and position.salts != _FRESH and header.salts[0] == self._successor():
            return None
        return "Before that, another program changed the database while retroact was not running."

    def _begin_base(self, reason: str, header: wal.WalHeader | None, fd: int) -> None:
        """Give up all states so far, and begin again with the one that main file and write-ahead log make up now.

        The log may have been copied to the main file in part, and then only the state after its last commit is certain: so what
        it holds becomes one commit, the base.
        """
        images: dict[int, bytes] = {}
        pages = _database_pages(self._main.xRead(100, 0), self._main.xFileSize(), self._page_size)
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
                chain = self._chains[page] = _Chain(image)
                self._connection.execute(_INSERT_CHUNK, _Draft(page, number, None, image).seal(chain))
                self._trim()
            self._connection.execute(_INSERT_COMMIT, _commit_row(base))
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
                row = _commit_row(commit)
                self._connection.execute(
                    "update pagelog_commit set version = ?, crc = ? where n = ?", (row[1], row[5], row[0])
                )
            self._update_meta(unsettled=None)
        self._last_commit = commits[-1] if commits else self._last_commit


def _moved_to(commit: wal.WalCommit) -> dict[str, int]:
    """The columns of the meta row that say that the write-ahead log was taken over up to the end of a commit."""
    return {"salt_1": commit.salts[0], "salt_2": commit.salts[1], "frames": commit.end_frame}


def _page_size(header: bytes, database_path: str) -> int:
    """The page size in bytes, from the first 100 bytes of a database."""
    if len(header) < 100 or header[:16] != b"SQLite format 3\0":
        raise NotADatabase(path=database_path, problem="its first bytes are not those of a SQLite database")
    size = int.from_bytes(header[16:18], "big")
    return 65536 if size == 1 else size


def _database_pages(header: bytes, file_size: int, page_size: int) -> int:
    """The size of a database in pages, found as SQLite finds it: its header, if that is up to date, or the file."""
    in_header = int.from_bytes(header[28:32], "big")
    return in_header if in_header and header[24:28] == header[92:96] else file_size // page_size
