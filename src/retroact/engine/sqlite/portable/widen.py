"""Reads more of the past than its own replay needed, so that changed code finds what an ordinary change of code would look at.

  * tables that are small, whole, with their indexes;
  * every row that was touched, through each index of its table;
  * the leaves beside those that were read: what SQLite balances when rows come and go, and what a slightly wider question meets;
  * the beginning of the list of free pages, from which new pages are taken;
  * tables that were asked for, whole; or everything.

Reading is all that is done here: who looks on takes note of the pages. This module must not know what becomes of them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

import apsw

from retroact.engine.sqlite.portable import btree
from retroact.engine.sqlite.portable.history import PortableHistory
from retroact.engine.sqlite.portable.pages import NotedPages
from retroact.engine.sqlite.queries import fetch, queries
from retroact.trace.record import Change

#: A table is small when it and its indexes have no more pages than this; all small ones together may have so many.
SMALL_PAGES = 16
ALL_SMALL_PAGES = 128
_TRUNKS = 4


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Wider:
    """What is wanted besides."""

    tables: tuple[str, ...] = ()
    whole: bool = False
    #: The rowids of rows that were changed, by table.
    touched: dict[str, set[int]] = dataclasses.field(default_factory=dict[str, set[int]])


def touched_rows(changes: Iterable[Change]) -> dict[str, set[int]]:
    """The rowids of changed rows by table."""
    found: dict[str, set[int]] = {}
    for change in changes:
        if change.rowid is not None:
            found.setdefault(change.table, set()).update((change.rowid, change.rowid_after or change.rowid))
    return found


def widen(history: PortableHistory, pages: NotedPages, wider: Wider) -> None:
    """Read all of that in every state."""
    for number in range(len(pages.states)):
        _State(history.connect(number), pages, number).read(wider)


class _State:
    """One state, being read."""

    def __init__(self, database: apsw.Connection, pages: NotedPages, number: int) -> None:
        self._database = database
        self._pages = pages
        self._number = number
        self._noted = pages.noted[number]
        self._sql = queries("portable.sql")

    def read(self, wider: Wider) -> None:
        if wider.whole:
            for page in range(1, self._pages.states[self._number].pages + 1):
                self._page(page)
        tables = fetch(self._database, self._sql["tables"])
        for table in wider.tables:
            self._scan(table, None)
        for table, without_rowid in tables:
            if not without_rowid:
                for rowid in sorted(wider.touched.get(table, ())):
                    self._look_up(table, rowid)
        self._neighbours()
        self._free_pages()
        room = ALL_SMALL_PAGES
        for table, _ in tables:
            room -= self._scan(table, min(SMALL_PAGES, room))
        self._database.close()

    def _scan(self, table: str, most: int | None) -> int:
        """Read a table and its indexes, or nothing of it when it has more pages than `most`. How many pages that was."""
        before = set(self._noted)
        seen = _Counter(self._noted)
        questions = [f"select * from {_quoted(table)} not indexed"]  # noqa: S608 - names are quoted
        questions += [
            f"select 1 from {_quoted(table)} indexed by {_quoted(index)}"  # noqa: S608
            for (index,) in fetch(self._database, self._sql["indexes"], (table,))
        ]
        for question in questions:
            if not self._rows(question, seen, most):
                for page in set(self._noted) - before:
                    del self._noted[page]
                return 0
        return seen.new

    def _rows(self, question: str, seen: _Counter, most: int | None) -> bool:
        """Read the rows of a question, unless it takes more new pages than `most`."""
        cursor = self._database.cursor()
        try:
            for _ in cursor.execute(question, can_cache=False):
                if most is not None and seen.new > most:
                    return False
        except apsw.SQLError:
            return True  # a partial index answers no such question; it is read when a row of it is looked up
        finally:
            cursor.close()
        return most is None or seen.new <= most

    def _look_up(self, table: str, rowid: int) -> None:
        """Find a row by its rowid, and again through every index with the values that it has."""
        name = _quoted(table)
        try:
            cursor = self._database.cursor()
            found: list[tuple[Any, ...]] = cursor.execute(f"select * from {name} where rowid = ?", (rowid,)).fetchall()  # noqa: S608
            columns = [column for (column,) in fetch(self._database, "select name from pragma_table_info(?)", (table,))]
        except apsw.SQLError:
            return
        for (index,) in fetch(self._database, self._sql["indexes"], (table,)) if found else []:
            keys = [key for (key,) in fetch(self._database, self._sql["index_columns"], (index,)) if key in columns]
            if keys:
                where = " and ".join(f"{_quoted(key)} is ?" for key in keys)
                values = tuple(found[0][columns.index(key)] for key in keys)
                question = f"select 1 from {name} indexed by {_quoted(index)} where {where} limit 2"  # noqa: S608
                try:
                    self._database.execute(question, values).fetchall()
                except apsw.SQLError:
                    continue

    def _neighbours(self) -> None:
        read = dict(self._noted)
        for page, image in read.items():
            below = btree.children(image, page)
            for place, child in enumerate(below):
                if child in read and btree.is_leaf(read[child], child):
                    for beside in below[max(place - 1, 0) : place + 2]:
                        self._page(beside)

    def _free_pages(self) -> None:
        trunk = btree.first_trunk(self._page(1))
        for _ in range(_TRUNKS):
            if trunk == 0:
                return
            trunk = btree.next_trunk(self._page(trunk))

    def _page(self, number: int) -> bytes:
        return self._pages.page(number, self._number)


class _Counter:
    """How many pages were noted since."""

    def __init__(self, noted: dict[int, bytes]) -> None:
        self._noted = noted
        self._before = len(noted)

    @property
    def new(self) -> int:
        """So many."""
        return len(self._noted) - self._before


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
