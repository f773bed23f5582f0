# ruff: noqa: N802, ARG002 - SQLite names these methods and what they take.
"""Past states as connections: a SQLite file layer that shows the database as it was after any commit, and lets it be written.

A connection opened here reads pages from the page log, or from the main file where the log has nothing, and keeps what it writes
in memory: it is a branch of the past, gone when it is closed. This module must not know versions, runs or the trace; it is asked
for commit numbers. It never writes to a file and takes no lock that a writer could feel.

Invariants:

1. What a branch reads is exactly the state after its commit, whatever the writer does meanwhile. For a page the main file is read
   *first* and the log is asked *afterwards*, in a new read transaction. If the log then has nothing, the page had not been logged
   when the main file was read; as the writer copies nothing to the main file before it is durable in the log (invariant 1 of
   pagelog.py), what was read is the image as of the base, and as of every commit since. If the log has something, that is used,
   and what was read, torn or too new as it may be, is thrown away. (The other order would be wrong: asked first, the log may know
   nothing of a page that is logged and checkpointed a moment later.)
2. The same question, asked after a gap began a new base, raises BeyondHistory: the log answers "nothing" only for commits it
   still covers.
3. What a branch writes is seen by it alone, and by forks made of it afterwards.
"""

from __future__ import annotations

import itertools
import os
import threading
import weakref
from collections.abc import Callable
from typing import Final, Protocol, cast

import apsw

from retroact.engine.sqlite.pagelog import Commit

_JULIAN_EPOCH_MS: Final = 210_866_760_000_000  # 1970 in milliseconds of the Julian day, which is how SQLite counts time
_NAMES = itertools.count(1)
_SECTOR = 4096
_SETTINGS: Final = (
    # Nothing else can see the file, so that nothing need be locked, looked at again, or made durable.
    "pragma locking_mode = exclusive",
    "pragma journal_mode = memory",
    "pragma synchronous = off",
    "pragma temp_store = memory",
)


class Pages(Protocol):
    """Where past pages come from: a page log, or something that answers like one."""

    @property
    def page_size(self) -> int: ...
    def commit(self, number: int) -> Commit: ...
    def page(self, page_number: int, commit_number: int) -> bytes | None: ...


class PastFile(Protocol):
    """A past state of the database file, page by page."""

    @property
    def pages(self) -> int: ...
    def image(self, page: int) -> bytes: ...


class TimeTravel:
    """Opens past states of one database. Many may be open at once, in different threads, each used by one thread at a time."""

    def __init__(
        self,
        database_path: str | os.PathLike[str] | None,
        pagelog: Pages,
        *,
        clock: Callable[[], int] | None = None,
    ) -> None:
        """Travel in the database at `database_path` with its page log, which stays the caller's to close. None: there is no
        database, and `pagelog` has every page.

        `clock` gives the microseconds since 1970 that `datetime('now')` and its like show on every connection, None the real
        time. It is asked in the thread that asks SQLite, and may be replaced at any time (attribute `clock`).
        """
        self.clock = clock
        self._pagelog = pagelog
        self._layer = _Layer(None if database_path is None else os.fspath(database_path), pagelog, self)

    def open(self, commit_number: int) -> apsw.Connection:
        """The database as it was after a commit, as a writable branch.

        Raises BeyondHistory if the page log begins after that commit, DamagedPage if what it holds was changed, ValueError if
        there is no such commit yet. DamagedPage may also be raised by whatever is executed on the connection.
        """
        commit = self._pagelog.commit(commit_number)
        return self._layer.connect(_Branch(self._layer, commit_number, commit.pages))

    def fork(self, connection: apsw.Connection) -> apsw.Connection:
        """An independent copy of a branch opened here, with what was committed on it.

        Raises ValueError in the middle of a transaction, whose changes are not in the branch yet, or for any other connection.
        """
        return self._layer.connect(self._fork(connection))

    def past(self, commit_number: int) -> PastFile:
        """The file as it was after a commit. Raises what `open` raises."""
        return _Branch(self._layer, commit_number, self._pagelog.commit(commit_number).pages)

    def freeze(self, connection: apsw.Connection) -> PastFile:
        """The file of a branch as it is now, with what was committed on it. Raises ValueError like `fork`."""
        return self._fork(connection)

    def _fork(self, connection: apsw.Connection) -> _Branch:
        branch = self._layer.branch_of(connection)
        if connection.in_transaction:
            message = "a branch cannot be forked in the middle of a transaction: commit or roll back first"
            raise ValueError(message)
        return branch.copy()

    def close(self) -> None:
        """Close all branches that are still open, and take the file layer away. Calling it again does nothing."""
        self._layer.close()


class _Layer(apsw.VFS):
    """The file layer itself, registered once for all branches. A branch is handed over under a name made for it."""

    def __init__(self, database_path: str | None, pagelog: Pages, owner: TimeTravel) -> None:
        self.layer_name = f"retroact-time-travel-{os.getpid()}-{next(_NAMES)}"
        self.pagelog = pagelog
        self.page_size = pagelog.page_size
        self._owner = weakref.ref(owner)
        self._names = itertools.count(1)
        self._arriving: dict[str, _Branch] = {}
        self._branches: weakref.WeakKeyDictionary[apsw.Connection, _Branch] = weakref.WeakKeyDictionary()
        self._lock = threading.Lock()
        # Through SQLite's own file layer: closing a descriptor of the main file in any other way would drop the locks that
        # connections of this process hold on it.
        flags = apsw.SQLITE_OPEN_MAIN_DB | apsw.SQLITE_OPEN_READONLY
        self._main: apsw.VFSFile | None = None if database_path is None else apsw.VFSFile("", database_path, [flags, 0])
        self._bare = database_path is None
        self._closed = False
        super().__init__(self.layer_name, "")

    def connect(self, branch: _Branch) -> apsw.Connection:
        name = f"/{branch.commit_number}-{next(self._names)}"
        self._arriving[name] = branch
        flags = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_NOMUTEX
        try:
            connection = apsw.Connection(name, flags=flags, vfs=self.layer_name)
        finally:
            self._arriving.pop(name, None)
        for setting in _SETTINGS:
            connection.execute(setting).fetchall()
        with self._lock:
            self._branches[connection] = branch
        return connection

    def branch_of(self, connection: apsw.Connection) -> _Branch:
        with self._lock:
            branch = self._branches.get(connection)
        if branch is None:
            message = "this connection is not a branch of the past opened here"
            raise ValueError(message)
        return branch

    def main_image(self, page: int) -> bytes:
        """A page as it stands in the main file now; zeros where that ends before, or where there is none."""
        if self._bare:
            return bytes(self.page_size)
        assert self._main is not None, "the branch was closed with its TimeTravel"
        return bytes(self._main.xRead(self.page_size, (page - 1) * self.page_size)).ljust(self.page_size, b"\0")

    def close(self) -> None:
        with self._lock:
            connections = list(self._branches)
            main, self._main = self._main, None
            closed, self._closed = self._closed, True
        for connection in connections:
            connection.close(force=True)
        if not closed:
            self.unregister()
        if main is not None:
            main.xClose()

    # --- what SQLite calls

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:
        flags[1] = flags[0]
        path = name.filename() if isinstance(name, apsw.URIFilename) else name
        # Journals and temporary files, should there be any, live in memory like the rest.
        file = self._arriving.get(path or "") or _Scratch()
        return cast("apsw.VFSFile", file)

    def xFullPathname(self, name: str) -> str:
        return name

    def xAccess(self, pathname: str, flags: int) -> bool:
        return False

    def xDelete(self, filename: str, syncdir: bool) -> None:
        pass

    def xCurrentTimeInt64(self) -> int:
        owner = self._owner()
        if owner is None or owner.clock is None:
            return super().xCurrentTimeInt64()
        return _JULIAN_EPOCH_MS + owner.clock() // 1000

    def xCurrentTime(self) -> float:
        return self.xCurrentTimeInt64() / 86_400_000


class _File:
    """What a file needs to be for SQLite, when nobody else can see it."""

    def xCheckReservedLock(self) -> bool:
        return False

    def xClose(self) -> None:
        pass

    def xDeviceCharacteristics(self) -> int:
        return apsw.SQLITE_IOCAP_POWERSAFE_OVERWRITE | apsw.SQLITE_IOCAP_SAFE_APPEND

    def xFileControl(self, op: int, ptr: int) -> bool:
        return False

    def xLock(self, level: int) -> None:
        pass

    def xUnlock(self, level: int) -> None:
        pass

    def xSectorSize(self) -> int:
        return _SECTOR

    def xSync(self, flags: int) -> None:
        pass


class _Scratch(_File):
    """A journal or temporary file: bytes in memory."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def xFileSize(self) -> int:
        return len(self._bytes)

    def xRead(self, amount: int, offset: int) -> bytes:
        return bytes(self._bytes[offset : offset + amount])

    def xTruncate(self, newsize: int) -> None:
        del self._bytes[newsize:]

    def xWrite(self, data: bytes, offset: int) -> None:
        if offset > len(self._bytes):
            self._bytes.extend(bytes(offset - len(self._bytes)))
        self._bytes[offset : offset + len(data)] = data


class _Branch(_File):
    """The database file as it was after a commit, with what was written since laid over it.

    `_past_pages` is how many pages of the past can still be seen: a branch that shrinks and grows again must not see old ones.
    """

    def __init__(self, layer: _Layer, commit_number: int, pages: int) -> None:
        self.commit_number = commit_number
        self._layer = layer
        self._page_size = layer.page_size
        self._overlay: dict[int, bytes] = {}
        self._past_pages = pages
        self._size = pages * layer.page_size

    def copy(self) -> _Branch:
        """A branch that is the same now and goes its own way from here."""
        twin = _Branch(self._layer, self.commit_number, 0)
        twin._overlay = dict(self._overlay)
        twin._past_pages = self._past_pages
        twin._size = self._size
        return twin

    def xFileSize(self) -> int:
        return self._size

    def xRead(self, amount: int, offset: int) -> bytes:
        page, skip = divmod(offset, self._page_size)
        if skip + amount <= self._page_size:
            if offset >= self._size:
                return b""
            image = self.image(page + 1)
            return image if amount == self._page_size else image[skip : skip + amount]
        first = self._page_size - skip
        return self.xRead(first, offset) + self.xRead(amount - first, offset + first)

    def xWrite(self, data: bytes, offset: int) -> None:
        page, skip = divmod(offset, self._page_size)
        if skip == 0 and len(data) == self._page_size:
            self._overlay[page + 1] = bytes(data)
        else:
            # SQLite writes whole pages; this is for whatever else it may think of.
            room = self._page_size - skip
            image = self.image(page + 1)
            here = data[:room]
            self._overlay[page + 1] = image[:skip] + here + image[skip + len(here) :]
            if len(data) > room:
                self.xWrite(data[room:], offset + room)
        self._size = max(self._size, offset + len(data))

    def xTruncate(self, newsize: int) -> None:
        pages = newsize // self._page_size
        self._overlay = {page: image for page, image in self._overlay.items() if page <= pages}
        self._past_pages = min(self._past_pages, pages)
        self._size = newsize

    @property
    def pages(self) -> int:
        return self._size // self._page_size

    def image(self, page: int) -> bytes:
        image = self._overlay.get(page)
        if image is not None:
            return image
        if page > self._past_pages:
            return bytes(self._page_size)
        standing = self._layer.main_image(page)  # before the log is asked: see invariant 1
        image = self._layer.pagelog.page(page, self.commit_number)
        if image is None:
            image = standing
        if page == 1:
            # The database says that it uses a write-ahead log. The branch has none: it is in rollback mode.
            image = image[:18] + b"\1\1" + image[20:]
        return image
