"""The write-ahead log file of SQLite, read as bytes: its header, its frames, and the commits they make up.

This module knows the file format (https://sqlite.org/fileformat2.html#walformat) and nothing else. It must not know the page log,
the trace, or any SQLite connection: it is handed an open file and gives back what it holds.

Invariants:

1. Only complete commits are given out: a run of frames whose last one names the size of the database. What a crash left half
   written, and what an older generation of the file left behind, is never seen.
2. Whoever says how many frames there are (the wal hook of the writer) is believed about their number, not about their generation:
   the salts of every frame are compared with those of the header.
3. Whoever does not say is in recovery: then each frame must also carry the checksum of everything before it, and reading stops at
   the first that does not, which is where SQLite itself would stop.

The file may be opened and closed freely beside SQLite: no lock lives on it (the locks are on the main file and on `-shm`).
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass

_HEADER = struct.Struct(">8I")
_FRAME = struct.Struct(">6I")
_CHECKSUM = struct.Struct(">2I")
_MAGIC_LITTLE = 0x377F0682
_MAGIC_BIG = 0x377F0683
_FORMAT = 3007000
_WORD = 0xFFFFFFFF
_READ_BYTES = 1 << 18


@dataclass(frozen=True, slots=True)
class WalHeader:
    """The header of one generation of a write-ahead log. The salts change when the file is begun again."""

    page_size: int
    salts: tuple[int, int]
    big_endian_checksums: bool
    checksum: tuple[int, int]


@dataclass(frozen=True, slots=True)
class WalCommit:
    """One complete commit: the last image of each page it wrote, and the size of the database after it.

    `first_frame` and `end_frame` count frames from the beginning of the file; `end_frame` is the first of the next commit.
    """

    frames: tuple[tuple[int, bytes], ...]
    database_pages: int
    first_frame: int
    end_frame: int
    salts: tuple[int, int]


def read_header(fd: int) -> WalHeader | None:
    """The header of the write-ahead log open as `fd`, or None if there is none that SQLite would accept (an empty file)."""
    raw = os.pread(fd, _HEADER.size, 0)
    if len(raw) < _HEADER.size:
        return None
    magic, version, page_size, _sequence, salt_1, salt_2, sum_1, sum_2 = _HEADER.unpack(raw)
    if magic not in (_MAGIC_LITTLE, _MAGIC_BIG) or version != _FORMAT:
        return None
    big = magic == _MAGIC_BIG
    if _checksum((0, 0), raw[:24], big_endian=big) != (sum_1, sum_2):
        return None
    return WalHeader(page_size, (salt_1, salt_2), big, (sum_1, sum_2))


def has_frame(fd: int, header: WalHeader, frame: int) -> bool:
    """Whether frame number `frame` stands in the file and belongs to the generation of `header`."""
    raw = os.pread(fd, _FRAME.size, _HEADER.size + frame * (_FRAME.size + header.page_size))
    return len(raw) == _FRAME.size and _FRAME.unpack(raw)[2:4] == header.salts


def read_commits(
    fd: int, header: WalHeader, start_frame: int, end_frame: int | None = None, *, verify: bool | None = None
) -> Iterator[WalCommit]:
    """The complete commits from frame `start_frame`, which must be the beginning of one, up to `end_frame`.

    Without `end_frame` the end is found by salts and checksums. `verify` says whether checksums are computed, which costs about
    50 us a frame; by default they are in recovery, and are not where the number of frames is known.
    """
    verify = end_frame is None if verify is None else verify
    pages: dict[int, bytes] = {}
    first = start_frame
    for number, page, database_pages, image in _frames(fd, header, start_frame, end_frame, verify):
        pages[page] = image
        if database_pages:
            yield WalCommit(tuple(pages.items()), database_pages, first, number + 1, header.salts)
            pages = {}
            first = number + 1


def _frames(fd: int, header: WalHeader, start: int, end: int | None, verify: bool) -> Iterator[tuple[int, int, int, bytes]]:
    """The valid frames from `start` on: (frame number, page number, size of the database or 0, image)."""
    size = _FRAME.size + header.page_size
    at_once = max(1, _READ_BYTES // size)
    running = _checksum_before(fd, header, start) if verify else header.checksum
    if running is None:
        return
    number = start
    while end is None or number < end:
        wanted = at_once if end is None else min(at_once, end - number)
        block = os.pread(fd, wanted * size, _HEADER.size + number * size)
        for offset in range(0, len(block) - size + 1, size):
            page, database_pages, salt_1, salt_2, sum_1, sum_2 = _FRAME.unpack_from(block, offset)
            if (salt_1, salt_2) != header.salts or page == 0:
                return
            body = offset + _FRAME.size
            image = block[body : body + header.page_size]
            if verify:
                running = _checksum(running, block[offset : offset + 8], big_endian=header.big_endian_checksums)
                running = _checksum(running, image, big_endian=header.big_endian_checksums)
                if running != (sum_1, sum_2):
                    return
            yield number, page, database_pages, image
            number += 1
        if len(block) < wanted * size:
            return


def _checksum_before(fd: int, header: WalHeader, start: int) -> tuple[int, int] | None:
    """The cumulative checksum that frame `start` continues: that of the frame before it, or the header; None: no frame."""
    if start == 0:
        return header.checksum
    raw = os.pread(fd, _CHECKSUM.size, _HEADER.size + (start - 1) * (_FRAME.size + header.page_size) + 16)
    if len(raw) < _CHECKSUM.size:
        return None
    first, second = _CHECKSUM.unpack(raw)
    return first, second


def _checksum(before: tuple[int, int], data: bytes, *, big_endian: bool) -> tuple[int, int]:
    """SQLite's checksum of `data`, whose length is a multiple of 8, continued from `before`."""
    words = struct.unpack(f"{'>' if big_endian else '<'}{len(data) // 4}I", data)
    first, second = before
    pairs = iter(words)
    for even, odd in zip(pairs, pairs, strict=True):
        first = (first + even + second) & _WORD
        second = (second + odd + first) & _WORD
    return first, second
