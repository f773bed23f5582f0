"""Clears the side file of the page log of what is older than its base, a few pages at a time, and gives the room back.

Moving the base (`PageLogWriter.begin_at`) is what ends the states before it, in one transaction. What they needed and no later state
needs is then swept away: of each page, everything before the whole image from which the base and all that follows is read. The last
chunk before that image stays as a *stub*, a row without data: its checksum is what the image's checksum continues.

Invariants:
  * Every step is one transaction after which the log is whole; a sweep that is broken off is gone on with by the next one.
  * The newest chunk of a page stays, unless no state from the base on is so large that it has the page.

This module must not know versions, the trace, nor who decides where the base is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, cast

import apsw

from retroact.engine.sqlite.pagefile import STUB, WHOLE
from retroact.engine.sqlite.queries import fetch

_NEXT_PAGE = "select place >> 32 from pagelog_chunk where place >= ? order by place limit 1"
_ANCHOR = "select place from pagelog_chunk where place between ? and ? and kind = ? order by place desc limit 1"
_BEFORE = "select place from pagelog_chunk where place >= ? and place < ? order by place desc limit 1"
_WEIGHT = "select coalesce(sum(length(data)), 0) from pagelog_chunk where place >= ? and place < ?"
_DELETE = "delete from pagelog_chunk where place >= ? and place < ?"
_MAKE_STUB = "update pagelog_chunk set kind = ?, data = x'' where place = ?"
_FORGET_COMMITS = "delete from pagelog_commit where n in (select n from pagelog_commit where n < ? order by n limit ?)"
COMMITS_AT_ONCE = 2000
BUSY_MS = 10_000


class Swept(NamedTuple):
    """How far a sweep has come: the next page to look at, None when it is through, and the bytes that went (or would go)."""

    next_page: int | None
    bytes: int


def sweep(side: apsw.Connection, base: int, page: int, count: int, forget: Callable[[int], None] | None) -> Swept:
    """Clear `count` pages from `page` on, inside a transaction. `forget` is told of pages that are gone altogether; without it
    nothing is cleared, only weighed."""
    largest = cast("int", side.execute("select max(pages) from pagelog_commit where n >= ?", (base,)).get)
    weight = 0
    for _ in range(count):
        found = cast("int | None", side.execute(_NEXT_PAGE, (page << 32,)).get)
        if found is None:
            return Swept(None, weight)
        first, end = found << 32, (found + 1) << 32
        if found > largest:
            weight += cast("int", side.execute(_WEIGHT, (first, end)).get)
            if forget is not None:
                side.execute(_DELETE, (first, end))
                forget(found)
        else:
            weight += _clear(side, first, first | base, dry=forget is None)
        page = found + 1
    return Swept(page, weight)


def _clear(side: apsw.Connection, first: int, base: int, *, dry: bool) -> int:
    """Clear one page of what was before the image that its versions from `base` on are read from. The bytes that went."""
    anchor = cast("int | None", side.execute(_ANCHOR, (first, base, WHOLE)).get)
    before = None if anchor is None else cast("int | None", side.execute(_BEFORE, (first, anchor)).get)
    if anchor is None or before is None:
        return 0
    weight = cast("int", side.execute(_WEIGHT, (first, anchor)).get)
    if not dry:
        side.execute(_DELETE, (first, before))
        side.execute(_MAKE_STUB, (STUB, before))
    return weight


def forget_commits(side: apsw.Connection, base: int) -> bool:
    """Clear some commits from before the base, inside a transaction; whether there may be more."""
    side.execute(_FORGET_COMMITS, (base, COMMITS_AT_ONCE))
    return side.changes() == COMMITS_AT_ONCE


def give_back(side: apsw.Connection, pages: int) -> bool:
    """Give some free pages of the side file back to the file system; whether there may be more."""
    if side.pragma("auto_vacuum") != _INCREMENTAL:
        # Written by an earlier version: once, the whole file is written anew.
        side.execute("pragma auto_vacuum = incremental").fetchall()
        side.execute("vacuum")
        return False
    fetch(side, f"pragma incremental_vacuum({pages})")
    return bool(side.pragma("freelist_count"))


def shorten(side: apsw.Connection) -> None:
    """Let the file itself become shorter, and its write-ahead log empty, if no reader is in the way."""
    side.set_busy_timeout(0)
    try:
        side.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    except apsw.BusyError:
        return  # next time
    finally:
        side.set_busy_timeout(BUSY_MS)


_INCREMENTAL = 2
