"""The side file of the page log: its rows, their checksums, and how versions of a page are packed into them.

What the page log means, and what must always hold of it, stands in pagelog.py; this module must not know it. It knows the tables
of pagelog.sql, and never the database that is logged.

A chunk is a run of versions of one page, compressed: the whole image or a patch for its first commit, and then, for each further
one, how many commits later it is (4 bytes) and a patch. A patch is a bit for each block of 256 bytes, and then the blocks whose bit
is set. The compressor's dictionary is the image the chunk continues from: what SQLite does
to a page is mostly moving bytes that were there, and appending rows that look like the rows before them.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple, cast

import apsw

from retroact.errors import DamagedPage, NewerDatabase

SUFFIX: Final = "-pages"
FORMAT: Final = 1
CACHED_PAGES: Final = 2000  # page images that reader and writer each keep in memory

_LEVEL = 6
CHUNK_VERSIONS = 24  # a reader decodes half a chunk in vain on average
_CHAIN_CHUNKS = 12
_CHAIN_VERSIONS = 96
_CHAIN_WEIGHT = 2  # patches may grow to this many times their keyframe
_BLOCK = 256  # bytes that a patch takes whole
_SMALL_PAGE = 4096
WHOLE = 1
PATCH = 0
#: What is left of the last chunk that compaction dropped: its checksum, which the next one continues.
STUB = 2

_SELECT_CHAIN = "select place, last, kind, crc, data from pagelog_chunk where place between ?1 and ?2 order by place desc"
_SELECT_NEXT = "select min(place) from pagelog_chunk where place > ?1 and place < ?2"
_SELECT_COMMIT = "select n, version, pages, persisted_us, changed, crc from pagelog_commit where n = ?1"
_SELECT_META = "select format, page_size, base, reason, salt_1, salt_2, frames, main_size, main_mtime, unsettled from pagelog_meta"
INSERT_CHUNK = "insert into pagelog_chunk (place, last, kind, crc, data) values (?, ?, ?, ?, ?)"
INSERT_COMMIT = "insert into pagelog_commit (n, version, pages, persisted_us, changed, crc) values (?, ?, ?, ?, ?, ?)"

_TYPICAL = (
    b"indexsqlite_autoindex_tablesqlite_sequence(name,seq)CREATE TABLE  (id INTEGER PRIMARY KEY,  TEXT NOT NULL UNIQUE"
    b'{"items":[{"id":1,"name":"","status":"ok","amount":100,"error":null,"result":true,"args":[1,2,3]}]}'
    b'[[1,{"i":18,"b":1001},1,"update  set  =  + 1 where id = ?"],[2,{"i":24,"b":999},0,"insert into  values (?, ?)"],["'
)


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


class Meta(NamedTuple):
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


class ChunkRow(NamedTuple):
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


# --- patches ------------------------------------------------------------------------------------------------------------

_DELTA = struct.Struct("<I")


def encode_patch(old: bytes, new: bytes) -> bytes:
    """What must be written over `old` to make it `new`, pages of one size: a bit for each block, and the blocks that differ whole.

    Finding exact runs of changed bytes would cost Python more time than the compressor needs to see that most of a block is old.
    """
    bits = 0
    parts: list[bytes] = []
    bit = 1
    for offset in range(0, len(new), _BLOCK):
        block = new[offset : offset + _BLOCK]
        if old[offset : offset + _BLOCK] != block:
            bits |= bit
            parts.append(block)
        bit <<= 1
    return bits.to_bytes(_bitmap_size(len(new)), "little") + b"".join(parts)


def _bitmap_size(page_size: int) -> int:
    return -(-page_size // (8 * _BLOCK))


# --- chunks -------------------------------------------------------------------------------------------------------------


def _compress(plain: bytes, dictionary: bytes) -> bytes:
    # A window just large enough for the page: setting up a larger one costs two to four times as much.
    window = -13 if len(dictionary) <= _SMALL_PAGE else -15
    packer = zlib.compressobj(_LEVEL, zlib.DEFLATED, window, 5, zlib.Z_DEFAULT_STRATEGY, dictionary)
    return packer.compress(plain) + packer.flush()


def _decompress(data: bytes, dictionary: bytes) -> bytes:
    return zlib.decompressobj(-15, dictionary).decompress(data)


def _checksum(key: Iterable[object], data: bytes = b"") -> int:
    """A signed 32-bit number, which SQLite stores in four bytes."""
    return zlib.crc32(data, zlib.crc32(",".join(map(str, key)).encode())) - (1 << 31)


def _place(page: int, number: int) -> int:
    return page << 32 | number


def commit_row(commit: Commit) -> tuple[int, int, int, int, int, int]:
    row = (commit.number, commit.version, commit.pages, commit.persisted_us, commit.changed_pages)
    return (*row, _checksum(row))


class Chain:
    """What is known of a page at its newest version: enough to continue it. Mutable, one per page in the writer's cache."""

    __slots__ = ("chunks", "crc", "following", "image", "patch_bytes", "since", "versions", "whole_bytes")

    def __init__(self, image: bytes) -> None:
        self.image = image
        self.crc = 0
        self.chunks = 0
        self.versions = 0
        self.patch_bytes = 0
        self.whole_bytes = 0
        #: The commit that made this image, and the one that changes it next, 0 when that is not known.
        self.since = 0
        self.following = 0

    def is_long(self) -> bool:
        """Whether the next chunk should begin with the whole image, so that reading the page stays quick."""
        heavy = self.chunks >= _CHAIN_CHUNKS // 3 and self.patch_bytes > _CHAIN_WEIGHT * self.whole_bytes
        return heavy or self.chunks >= _CHAIN_CHUNKS or self.versions >= _CHAIN_VERSIONS

    def extend(self, kind: int, versions: int, size: int) -> None:
        if kind == WHOLE:
            self.chunks, self.versions, self.patch_bytes, self.whole_bytes = 0, 0, 0, size
        else:
            self.patch_bytes += size
        self.chunks += 1
        self.versions += versions


class Draft:
    """A chunk while versions are added to it."""

    __slots__ = ("_dictionary", "_parts", "first", "kind", "last", "page", "versions")

    def __init__(self, page: int, number: int, old: bytes | None, image: bytes) -> None:
        """Begin with `image` as of commit `number`: as a patch to `old`, or whole if that is None."""
        self.page = page
        self.first = self.last = number
        self.kind = WHOLE if old is None else PATCH
        self.versions = 1
        self._dictionary = _TYPICAL if old is None else old
        self._parts = [image if old is None else encode_patch(old, image)]

    def add(self, number: int, old: bytes, image: bytes) -> None:
        self._parts += (_DELTA.pack(number - self.last), encode_patch(old, image))
        self.last = number
        self.versions += 1

    def seal(self, chain: Chain) -> tuple[int, int, int, int, bytes]:
        """The row of the chunk, which from now on is the last of `chain`."""
        data = _compress(b"".join(self._parts), self._dictionary)
        key = (_place(self.page, self.first), self.last, self.kind)
        chain.crc = _checksum((*key, chain.crc), data)
        chain.extend(self.kind, self.versions, len(data))
        return (*key, chain.crc, data)


def unpack(row: ChunkRow, image: bytes, page_size: int, until: int) -> tuple[bytes, list[int], int]:
    """The image after the versions of a chunk up to commit `until`, the commits of these versions, and that of the next, else 0.

    Each block is copied once, from the newest version that has it.
    """
    whole = row.kind == WHOLE
    plain = _decompress(row.data, _TYPICAL if whole else image)
    result = bytearray(plain[:page_size] if whole else image)
    size = _bitmap_size(page_size)
    numbers = [row.first]
    patches: list[tuple[int, int]] = []
    at = page_size
    if not whole:
        at = _find_patch(plain, 0, size, patches)
    number, following = row.first, 0
    while at < len(plain):
        number += _DELTA.unpack_from(plain, at)[0]
        if number > until:
            following = number
            break
        at = _find_patch(plain, at + _DELTA.size, size, patches)
        numbers.append(number)
    wanted = -1
    for bits, start in reversed(patches):
        fresh = bits & wanted
        while fresh:
            lowest = fresh & -fresh
            offset = (lowest.bit_length() - 1) * _BLOCK
            block = start + (bits & (lowest - 1)).bit_count() * _BLOCK
            result[offset : offset + _BLOCK] = plain[block : block + _BLOCK]
            fresh ^= lowest
        wanted &= ~bits
    return bytes(result), numbers, following


def _find_patch(plain: bytes, at: int, size: int, patches: list[tuple[int, int]]) -> int:
    """Note the patch at `at`: its bits, and where its blocks begin. The offset where it ends."""
    bits = int.from_bytes(plain[at : at + size], "little")
    patches.append((bits, at + size))
    return at + size + bits.bit_count() * _BLOCK


# --- the side file, as reader and writer share it -------------------------------------------------------------------------


class SideFile:
    """The open side file: its rows, checked. Not for use by two threads at once."""

    def __init__(self, path: str, flags: int) -> None:
        self.path = path
        self.connection = apsw.Connection(path, flags=flags)
        self.connection.set_busy_timeout(10_000)

    def meta(self) -> Meta:
        meta = Meta(*cast("Meta", self.connection.execute(_SELECT_META).fetchall()[0]))
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
        return Commit(number=number, version=version, pages=pages, persisted_us=persisted_us, changed_pages=changed)

    def last_number(self) -> int:
        """The number of the newest commit, 0 if there is none."""
        number = self.connection.execute("select max(n) from pagelog_commit").fetchall()[0][0]
        return cast("int | None", number) or 0

    def chain(self, page: int, number: int) -> tuple[list[ChunkRow], int]:
        """The chunks needed to know `page` as of commit `number`, oldest first, and the checksum the oldest is seeded with."""
        rows: list[ChunkRow] = []
        seed = 0
        # The cursor must be closed before anything else is asked: an open one holds on to an old state of the side file.
        cursor = self.connection.execute(_SELECT_CHAIN, (_place(page, 0), _place(page, number)))
        try:
            for values in cursor:
                row = ChunkRow(*cast("ChunkRow", values))
                if rows and rows[-1].kind == WHOLE:
                    seed = row.crc
                    break
                rows.append(row)
        except apsw.CorruptError as error:
            raise self.damage(page, number, f"cannot be read ({error})") from error
        finally:
            cursor.close()
        rows.reverse()
        return rows, seed

    def rebuild(self, page: int, number: int, page_size: int) -> Chain | None:
        """The page as of commit `number`, or None if the log does not know it."""
        rows, seed = self.chain(page, number)
        if not rows:
            return None
        if rows[0].kind != WHOLE:
            raise self.damage(page, rows[0].first, "has no whole image to begin with")
        chain = Chain(b"")
        chain.crc = seed
        for row in rows:
            problem = self.problem(row, chain.crc)
            if problem:
                raise self.damage(page, row.first, problem)
            try:
                chain.image, numbers, chain.following = unpack(row, chain.image, page_size, number)
            except (zlib.error, struct.error) as error:
                raise self.damage(page, row.first, f"cannot be decoded ({error})") from error
            chain.crc = row.crc
            chain.since = numbers[-1]
            chain.extend(row.kind, len(numbers), len(row.data))
        return chain

    def next_change(self, page: int, number: int) -> int:
        """The first commit after `number` whose chunk of `page` begins with it, 0 if there is none."""
        row = self.connection.execute(_SELECT_NEXT, (_place(page, number), _place(page + 1, 0))).get
        return cast("int", row) & 0xFFFFFFFF if row is not None else 0

    def problem(self, row: ChunkRow, seed: int) -> str | None:
        if not isinstance(row.data, bytes):  # pyright: ignore[reportUnnecessaryIsInstance] - an edited row may hold anything
            return "was changed after it was written"
        if _checksum((row.place, row.last, row.kind, seed), row.data) != row.crc:
            return "was changed after it was written, or what was before it is missing"
        return None

    def damage(self, page: int | str, number: int, problem: str) -> DamagedPage:
        return DamagedPage(path=self.path, page=page, commit=number, problem=problem)
