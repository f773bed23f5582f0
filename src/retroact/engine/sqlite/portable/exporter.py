"""Takes a span of a database's past out of it: the records, and the pages of the states that it begins in, noted while they are read.

What is read is up to who exports: he is given the past (`history`) and runs it again; then `contents` has what that touched.

Invariants:
  * The span begins no later than the oldest state that any transaction in it saw, and at a state that the page log has as it is.
  * Pages are taken only from past states, so a writer that lives goes on meanwhile and is not seen.

This module must not know why the past is run again.
"""

from __future__ import annotations

from collections.abc import Sequence

import apsw
import msgspec

from retroact.engine.sqlite.database import open_reader
from retroact.engine.sqlite.history import History
from retroact.engine.sqlite.portable.history import Contents, PortableHistory, StateEntry
from retroact.engine.sqlite.portable.pages import NotedPages
from retroact.engine.sqlite.portable.records import TraceDraft, link_of, record_rows, whole_runs
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
        self.last = last
        self.base = self._reach_back(first)
        self.pages = NotedPages(home.pages.page_size, self._states(), home.path)
        self.history = PortableHistory(home.path, self.pages, TraceReader(home.path), [])

    def close(self) -> None:
        """Let everything go."""
        self.history.close()
        self._travel.close()
        self._source.close()

    def widen(self, wider: Wider) -> None:
        """Take more than what was read so far. Raises UnknownTable."""
        database = self.history.connect(len(self.pages.states) - 1)
        known = [name for (name,) in fetch(database, self._sql["names"])]
        database.close()
        for table in wider.tables:
            if table not in known:
                raise UnknownTable(
                    what=f"table {table}",
                    database=self._home.path,
                    version=self.last,
                    known=", ".join(n for n in known if not n.startswith("retroact_")) or "none",
                )
        widen(self.history, self.pages, wider)

    def sections(self, chosen: Sequence[str]) -> Sections:
        """What was read, and the records."""
        draft = TraceDraft(self._source, link_of(self._source, self.base))
        for row in record_rows(self._source, self.base, self.last):
            draft.add_record(row)
        runs = whole_runs(self._source, self.base, self.last, chosen)
        for run in runs:
            row = draft.run_row(run)
            if row is not None:
                draft.add_run(row)
        link = link_of(self._source, self.base)
        return assemble(self.history, self.pages, draft.image(), link, self._persisted(), chosen)

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
        versions = [self.base, *(v for (v,) in fetch(self._source, self._sql["schema_versions"], (self.base, self.last)))]
        states: list[tuple[int, PastFile]] = []
        for version in versions:
            self._home.at(version).close()  # waits for the page log of a living writer
            states.append((version, self._travel.past(self._home.pages.commit_of(version).number)))
        return states

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


def assemble(
    history: PortableHistory, pages: NotedPages, trace: bytes, link: int, persisted: list[tuple[int, int]], chosen: Sequence[str]
) -> Sections:
    """The sections of a file with the pages that were noted."""
    numbers: dict[bytes, int] = {}
    states: list[StateEntry] = []
    roots = [_roots(history.connect(number)) for number in range(len(pages.states))]  # read before the pages are counted
    for number, state in enumerate(pages.states):
        images = {page: numbers.setdefault(image, len(numbers)) for page, image in sorted(pages.noted[number].items())}
        states.append(StateEntry(state.version, state.pages, images, roots[number]))
    contents = Contents(pages.page_size, link, states, persisted, list(chosen), [])
    return {"states": msgspec.json.encode(contents), "trace": trace, "images": b"".join(numbers)}


def _roots(database: apsw.Connection) -> dict[int, tuple[str, str]]:
    try:
        return {root: (name, table) for root, name, table in fetch(database, queries("portable.sql")["roots"])}
    finally:
        database.close()
