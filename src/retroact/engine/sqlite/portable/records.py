"""The part of a trace that a portable one has: the records of a span of versions, the runs that lie in it, and all that they name.

A workflow of which only a part lies in the span is not among the runs: its records are there, because they had their effects, but
nobody can ask for it as if it were whole.

This module must not know pages.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import apsw

from retroact.engine.sqlite.database import SCHEMA_VERSION, split
from retroact.engine.sqlite.queries import fetch, queries, script
from retroact.trace.codec import chain, decode_json

#: Where these are in a row of retroact_record.
FUNCTION, STATEMENTS, CHANGES = 4, 11, 12
Row = tuple[Any, ...]


def record_rows(source: apsw.Connection, base: int, last: int) -> Iterator[Row]:
    """The records with base < version <= last as they are stored, without their links."""
    for row in source.execute(queries()["chained"], (base, last)):
        yield row[:-1]


def link_of(source: apsw.Connection, version: int) -> int:
    """The link of a record, 0 before the first."""
    rows = fetch(source, queries()["link"], (version,))
    return rows[0][0] if rows else 0


def whole_runs(source: apsw.Connection, base: int, last: int, chosen: Iterable[str]) -> list[str]:
    """The workflows that can be asked for: those that were chosen, and those that lie in the span from beginning to end, with all
    that they called."""
    sql = queries("portable.sql")
    asked = set(chosen)
    parents: dict[str, str | None] = dict(fetch(source, sql["whole_runs"], {"after": base, "until": last}))
    whole = asked | parents.keys()
    called = {run: [child for (child,) in fetch(source, sql["children"], (run,))] for run in whole}
    while True:
        parted = {
            run
            for run in whole - asked
            if any(child not in whole for child in called[run]) or (parents[run] is not None and parents[run] not in whole)
        }
        if not parted:
            return sorted(whole)
        whole -= parted


class TraceDraft:
    """The tables of a trace, being filled with what is copied from another."""

    def __init__(self, source: apsw.Connection, link: int) -> None:
        self._source = source
        self._link = link
        self._sql = {**queries(), **queries("portable.sql")}
        self._functions: set[int] = set()
        self._texts: set[int] = set()
        self._relations: set[int] = set()
        self._database = apsw.Connection(":memory:")
        self._database.pragma("page_size", 1024)  # many small tables
        for statement in split(script("schema.sql")):
            self._database.execute(statement)
        self._database.execute("begin")
        self._database.execute(self._sql["insert_meta"], (str(SCHEMA_VERSION),))

    def add_record(self, row: Row) -> None:
        """The next record, with all that it names."""
        self._link = chain(self._link, row)
        self._database.execute(self._sql["insert_record"], (*row, self._link))
        self._function(row[FUNCTION])
        for entry in decode_json(row[STATEMENTS] or "[]"):
            self._text(entry[0])
        for entry in decode_json(row[CHANGES] or "[]"):
            self._relation(entry[0])

    def add_run(self, row: Row) -> None:
        """A workflow as it is stored."""
        self._database.execute(self._sql["insert_run_row"], row)
        self._function(row[1])

    def run_row(self, run: str) -> Row | None:
        """A workflow as it is stored in the source."""
        rows = fetch(self._source, self._sql["run_row"], (run,))
        return rows[0] if rows else None

    def name_text(self, number: int, text: str) -> None:
        """A statement text that the source does not have."""
        if number not in self._texts:
            self._texts.add(number)
            self._database.execute(self._sql["insert_sql"], (number, text, "[]", "[]"))

    def image(self) -> bytes:
        """The tables as the bytes of a database."""
        self._processes()
        self._database.execute("commit")
        return self._database.serialize("main")

    def _processes(self) -> None:
        if self._source.table_exists("main", "retroact_process"):
            first, until = fetch(self._database, self._sql["span"])[0]
            for row in fetch(self._source, self._sql["processes"], {"first": first, "until": until}):
                self._database.execute(self._sql["insert_process"], row)

    def _text(self, number: int) -> None:
        if number not in self._texts:
            self._texts.add(number)
            self._database.execute(self._sql["insert_sql"], fetch(self._source, self._sql["sql_row"], (number,))[0])

    def _relation(self, number: int) -> None:
        if number and number not in self._relations:
            self._relations.add(number)
            self._database.execute(self._sql["insert_relation"], fetch(self._source, self._sql["relation_row"], (number,))[0])

    def _function(self, number: int) -> None:
        if number in self._functions:
            return
        self._functions.add(number)
        row = fetch(self._source, self._sql["function_row"], (number,))[0]
        self._database.execute(self._sql["insert_function"], row)
        if row[-1] is not None:
            self._code(row[-1])

    def _code(self, digest: str) -> None:
        main, sources = fetch(self._source, self._sql["code"], (digest,))[0]
        for _, _, source in decode_json(sources):
            text = fetch(self._source, self._sql["source"], (source,))[0][0]
            self._database.execute(self._sql["insert_source"], (source, text))
        self._database.execute(self._sql["insert_code"], (digest, main, sources))
