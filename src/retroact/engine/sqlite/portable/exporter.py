"""Takes a span of a database's past out of it: the records, and the pages of the states that it begins in, noted while they are read.

What is read is up to who exports: he is given the past (`history`) and runs it again; then `contents` has what that touched.

Invariants:
  * The span begins no later than the oldest state that any transaction in it saw, and at a state that the page log has as it is.
  * Pages are taken only from past states, so a writer that lives goes on meanwhile and is not seen.

This module must not know why the past is run again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import apsw
import msgspec

from retroact.engine.sqlite.database import open_reader
from retroact.engine.sqlite.history import History
from retroact.engine.sqlite.portable import btree
from retroact.engine.sqlite.portable.history import Contents, PortableHistory, StateEntry
from retroact.engine.sqlite.portable.pages import NotedPages
from retroact.engine.sqlite.portable.records import TraceDraft, link_of, record_rows, whole_runs
from retroact.engine.sqlite.portable.redacted import Redacted
from retroact.engine.sqlite.portable.redactor import FunctionOf
from retroact.engine.sqlite.portable.widen import Wider, widen
from retroact.engine.sqlite.queries import fetch, queries
from retroact.engine.sqlite.timetravel import PastFile, TimeTravel
from retroact.engine.sqlite.trace_reader import TraceReader
from retroact.errors import UnknownTable

Sections = dict[str, bytes]


class Exporter:
    """One span of the past of one database, on its way into a file."""

    def __init__(self, home: History, first: int, last: int) -> None:
        """`first`: the oldest version seen; `last`: the newest written. Raises BeyondHistory."""
        self._home = home
        self._travel = TimeTravel(home.path, home.pages)
        self._source = open_reader(home.path)
        self._source.execute("begin")
        self._sql = queries("portable.sql")
        self._redacted: Redacted | None = None
        self.last = last
        self.base = self._reach_back(first)
        self._use(self._states(), None)

    def close(self) -> None:
        """Let everything go."""
        self.history.close()
        self._travel.close()
        self._source.close()

    def redact(self, columns: Sequence[str], key: bytes, function_of: FunctionOf, chosen: Sequence[str]) -> None:
        """From here on it is another past, in which these columns have other values. Raises CannotRedact."""
        redacted = Redacted(self._home.path, self.base, columns, key)
        rows = list(record_rows(self._source, self.base, self.last))
        records = list(self._home.trace.records_between(self.base, self.last))
        states = redacted.make(self._travel, [number for _, number in self._commits()], self._source, (rows, records), function_of)
        trace = redacted.fill(TraceDraft(self._source, 0), whole_runs(self._source, self.base, self.last, chosen))
        self._redacted = redacted
        self.history.close()
        self._use(states, trace)

    def widen(self, wider: Wider) -> None:
        """Take more than what was read so far. Raises UnknownTable."""
        database = self.history.connect(len(self.pages.states) - 1)
        known = [name for (name,) in fetch(database, self._sql["names"])]
        database.close()
        own = [name for name in known if not name.startswith("retroact_")]
        for table in wider.tables:
            if table not in (known if self._redacted is None else own):
                raise UnknownTable(what=f"table {table}", database=self._home.path, version=self.last, known=", ".join(own) or "none")
        if wider.whole and self._redacted is not None:
            wider = dataclasses.replace(wider, whole=False, tables=tuple(own))  # the pages of the trace itself are not redacted
        widen(self.history, self.pages, wider)

    def sections(self, chosen: Sequence[str]) -> tuple[Sections, list[str]]:
        """What was read, and the records; and what is to be known of it. Raises CannotRedact."""
        trace, link = self._trace, 0
        if trace is None:
            link = link_of(self._source, self.base)
            trace = self._copied(chosen, link)
        roots = [_roots(self.history.connect(number)) for number in range(len(self.pages.states))]
        images: list[dict[int, bytes]] = list(self.pages.noted)
        notes: list[str] = []
        columns: list[str] = []
        if self._redacted is not None:
            images = [btree.scrubbed(noted, names) for noted, names in zip(images, roots, strict=True)]
            notes = self._redacted.search(trace, images, roots)
            columns = list(map(str, self._redacted.columns))
        numbers: dict[bytes, int] = {}
        states = [
            StateEntry(
                state.version,
                state.pages,
                {page: numbers.setdefault(image, len(numbers)) for page, image in sorted(images[number].items())},
                roots[number],
            )
            for number, state in enumerate(self.pages.states)
        ]
        contents = Contents(self.pages.page_size, link, states, self._persisted(), list(chosen), columns)
        return {"states": msgspec.json.encode(contents), "trace": trace, "images": b"".join(numbers)}, notes

    def _use(self, states: Sequence[tuple[int, PastFile]], trace: bytes | None) -> None:
        self._trace = trace
        self.pages = NotedPages(self._home.pages.page_size, states, self._home.path)
        if trace is None or self._redacted is None:
            self.history = PortableHistory(self._home.path, self.pages, TraceReader(self._home.path), [])
        else:
            self.history = self._redacted.history(self.pages, trace)

    def _copied(self, chosen: Sequence[str], link: int) -> bytes:
        draft = TraceDraft(self._source, link)
        for row in record_rows(self._source, self.base, self.last):
            draft.add_record(row)
        for run in whole_runs(self._source, self.base, self.last, chosen):
            row = draft.run_row(run)
            if row is not None:
                draft.add_run(row)
        return draft.image()

    def _reach_back(self, version: int) -> int:
        """The newest state of the page log that is no later than all that the span's transactions saw."""
        while True:
            found: int = self._home.pages.commit_of(version).version
            rows = fetch(self._source, self._sql["oldest_snapshot"], (found, self.last))
            oldest = rows[0][0] if rows and rows[0][0] is not None else found
            if oldest >= found:
                return found
            version = oldest

    def _states(self) -> list[tuple[int, PastFile]]:
        return [(version, self._travel.past(number)) for version, number in self._commits()]

    def _commits(self) -> list[tuple[int, int]]:
        """The versions of which the state is needed, with their commits in the page log."""
        found: list[tuple[int, int]] = []
        for version in (self.base, *(v for (v,) in fetch(self._source, self._sql["schema_versions"], (self.base, self.last)))):
            self._home.at(version).close()  # waits for the page log of a living writer
            found.append((version, self._home.pages.commit_of(version).number))
        return found

    def _persisted(self) -> list[tuple[int, int]]:
        log = self._home.pages
        newest = log.last_commit.number
        number = log.commit_of(self.base).number + 1
        found: list[tuple[int, int]] = []
        while number <= newest:
            commit = log.commit(number)
            found.append((commit.version, commit.persisted_us))
            if commit.version >= self.last:
                break
            number += 1
        return found


def _roots(database: apsw.Connection) -> dict[int, tuple[str, str]]:
    try:
        return {root: (name, table) for root, name, table in fetch(database, queries("portable.sql")["roots"])}
    finally:
        database.close()
