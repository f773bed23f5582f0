"""The page log: every version of every page that a SQLite database had, commit by commit, in a file of its own beside it.

It is written by the one process that writes the database, from what it reads in the write-ahead log, and read by any number of
processes at the same time. It must not know functions, runs, or what a trace record looks like: a version is a number to it,
and a page is bytes. It never opens the database through SQL.

Reading is here, writing in pagelog_writer.py, and what both know of the side file in pagefile.py.

Invariants:

1. Log before checkpoint. A commit is in the page log, durably, before any page of it is copied to the main file. So a page the
   log does not know still stands in the main file as it stood when logging began, and a reader that reads the main file first
   and asks the log afterwards gets the right image whoever writes meanwhile (see timetravel.py).
2. The first version of a page is its image as of the base: read from the main file just before its first change is logged, or
   before the database shrinks below it.
3. Commits are numbered without holes from the base, and pages, versions and the position in the write-ahead log move in one
   transaction of the side file. What was logged is never changed, save that a gap removes all of it, and that compaction removes
   what is older than a base that it has moved forward (see sweep.py).
4. A gap is a change that nobody logged. It is never bridged: a new base begins after it, and the states before it are refused.
5. Every row carries a checksum over all of itself, its key included; that of a chunk is seeded with that of the page's chunk
   before it. An edited row is reported as DamagedPage when it is read; a missing one too, at the latest by `verify()`.
"""

from __future__ import annotations

import os
import struct
import threading
import zlib
from bisect import bisect_right, insort
from collections import Counter, OrderedDict
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import cast

import apsw

from retroact.engine.sqlite.pagefile import CACHED_PAGES, STUB, SUFFIX, Chain, ChunkRow, Commit, Meta, SideFile, unpack
from retroact.engine.sqlite.pagelog_writer import Identity, LoggedCommit, PageLogWriter, Position, identity_of
from retroact.engine.sqlite.sweep import sweep
from retroact.errors import BeyondHistory, DamagedPage
from retroact.trace.retention import Limit

__all__ = ["SUFFIX", "Commit", "Identity", "LoggedCommit", "PageLog", "PageLogWriter", "Position", "identity_of"]


class PageLog:
    """The page log of a database, for reading. Safe beside a writer in another process, and from several threads."""

    def __init__(self, database_path: str | os.PathLike[str], *, cached_pages: int = CACHED_PAGES) -> None:
        """Open the log of the database at `database_path`, keeping up to `cached_pages` past page images in memory.

        Raises apsw.CantOpenError if the database has no page log, NewerDatabase if a later release wrote it.
        """
        self.database_path = os.fspath(database_path)
        self._file = SideFile(self.database_path + SUFFIX, apsw.SQLITE_OPEN_READONLY)
        self._lock = threading.Lock()
        #: Images by page and the commit that made them, with the last commit that they are known to hold for.
        self._images: OrderedDict[tuple[int, int], tuple[int, bytes]] = OrderedDict()
        #: The commits that made the images that are kept, by page, in order.
        self._made: dict[int, list[int]] = {}
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
        with self._lock:
            image = self._kept(page_number, commit_number)
            if image is not None:
                return image
            # In this order: a commit that comes between the two questions is beyond what the image is then said to hold for.
            newest = self._file.last_number()
            chain = self._rebuild(page_number, commit_number)
            if chain is None:
                meta = self._file.meta()
                if commit_number < self._base(meta, f"of commit {commit_number}"):
                    raise self._beyond(meta, f"of commit {commit_number}")
                return None
            following = chain.following or self._file.next_change(page_number, commit_number)
            self._keep(page_number, chain.since, following - 1 if following else max(newest, commit_number), chain.image)
            return chain.image

    def _rebuild(self, page: int, number: int) -> Chain | None:
        try:
            return self._file.rebuild(page, number, self.page_size)
        except DamagedPage:
            meta = self._file.meta()
            if number < self._base(meta, f"of commit {number}"):
                raise self._beyond(meta, f"of commit {number}") from None  # dropped since the state was opened
            raise

    def newest_by(self, persisted_us: int) -> Commit | None:
        """The newest commit that was durable by a time."""
        with self._lock, self._snapshot() as meta:
            sql = "select max(n) from pagelog_commit where persisted_us <= ? and n >= ?"
            number = cast("int | None", self._file.connection.execute(sql, (persisted_us, self._base(meta, "any"))).get)
            return None if number is None else self._file.commit(number)

    def used_bytes(self) -> int:
        """The bytes of the page log in use."""
        with self._lock:
            side = self._file.connection
            return (side.pragma("page_count") - side.pragma("freelist_count")) * side.pragma("page_size")

    def weigh(self, base: int) -> tuple[int, int]:
        """The bytes of the page log, and those of them that no state from commit `base` on needs."""
        with self._lock:
            file = SideFile(self._file.path, apsw.SQLITE_OPEN_READONLY)
        try:
            used = file.connection.pragma("page_count") - file.connection.pragma("freelist_count")
            return used * file.connection.pragma("page_size"), sweep(file.connection, base, 0, 2**32, None).bytes
        finally:
            file.connection.close()

    def _kept(self, page: int, number: int) -> bytes | None:
        """The image of a page that holds for a commit, if it is kept."""
        made = self._made.get(page)
        place = bisect_right(made, number) if made else 0
        if not made or not place:
            return None
        key = (page, made[place - 1])
        until, image = self._images[key]
        if number > until:
            return None
        self._images.move_to_end(key)
        return image

    def _keep(self, page: int, since: int, until: int, image: bytes) -> None:
        """Keep an image, and let the one go that has not been asked for the longest."""
        if (page, since) not in self._images:
            insort(self._made.setdefault(page, []), since)
        self._images[page, since] = (until, image)
        if len(self._images) > self._cached_pages:
            (old, made), _ = self._images.popitem(last=False)
            self._made[old].remove(made)

    def verify(self) -> Iterator[DamagedPage]:
        """Every problem of the log, as an error to show or to raise. Reads all of it, as of the moment of the call."""
        with self._lock:
            file = SideFile(self._file.path, apsw.SQLITE_OPEN_READONLY)
        try:
            file.connection.execute("begin")
            yield from _verify(file)
        except apsw.CorruptError as error:
            yield file.damage("count", 0, f"cannot be read ({error})")
        finally:
            file.connection.close()

    @contextmanager
    def _snapshot(self) -> Generator[Meta]:
        """One unchanging state of the side file for several questions, with its meta row."""
        self._file.connection.execute("begin")
        try:
            yield self._file.meta()
        finally:
            self._file.connection.execute("commit")

    def _base(self, meta: Meta, asked: int | str) -> int:
        if meta.base is None:
            raise self._beyond(meta, asked)
        return meta.base

    def _last(self, meta: Meta, asked: int | str) -> int:
        last = meta.unsettled - 1 if meta.unsettled is not None else self._file.last_number()
        if meta.base is None or last < meta.base:
            raise self._beyond(meta, asked)
        return last

    def _beyond(self, meta: Meta, asked: int | str) -> BeyondHistory:
        horizon: str | Limit = "?"
        if meta.base is not None:
            base = self._file.commit(meta.base)
            horizon = Limit(version=base.version, began_us=base.persisted_us)
        return BeyondHistory(version=asked, database=self.database_path, horizon=horizon, reason=meta.reason)


def _guess(low: Commit, high: Commit, version: int) -> int:
    """A number between two commits, near where `version` would be if versions were spread evenly, which they mostly are."""
    share = (version - low.version) * (high.number - low.number) // (high.version - low.version)
    return min(max(low.number + share, low.number + 1), high.number - 1)


def _verify(file: SideFile) -> Iterator[DamagedPage]:
    """Check all chunks in order, then that every commit has as many page versions as it says."""
    meta = file.meta()
    found: Counter[int] = Counter()
    page, seed, image = 0, 0, b""
    rows = file.connection.execute("select place, last, kind, crc, data from pagelog_chunk order by place")
    for values in rows:
        row = ChunkRow(*cast("ChunkRow", values))
        if row.page != page:
            page, seed, image = row.page, 0, b""
        if row.kind == STUB and not image:
            seed = row.crc
            continue
        problem = file.problem(row, seed)
        seed = row.crc
        if problem:
            yield file.damage(page, row.first, problem)
            continue
        try:
            image, numbers, _ = unpack(row, image, meta.page_size, row.last)
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
