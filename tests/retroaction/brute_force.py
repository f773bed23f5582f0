"""All interleavings of some runs, one by one, without any of what an exploration leaves out or remembers.

Each is executed from its beginning on a branch; what two share is taken back and not more. The oracle of the tests of exploration.
"""

from __future__ import annotations

import contextlib
from typing import Any

import apsw

from retroact.app import App
from retroact.replay.shelf import Shelf
from retroact.retroaction.cast import Place
from retroact.retroaction.rehearsal import Answer
from retroact.retroaction.search import _told
from retroact.retroaction.setting import Setting, prepare
from retroact.trace.record import RunId


class BruteForce:
    """Walks over every interleaving of whole transactions."""

    def __init__(self, app: App, runs: list[str], *, preemptions: int | None = None, merge: bool = False) -> None:
        """`merge`: what is the same in every row, number and place is not walked twice. For programs that have too many interleavings."""
        app._catch_up()
        shelf = Shelf(app.history.trace, app.registry)
        self.setting: Setting = prepare(app.history, shelf, [RunId(run) for run in runs], None, {})
        branch = app.history.at(self.setting.version)
        self.nest = branch.nest()
        self.preemptions = preemptions
        self.count = 0
        self._seen: set[Any] | None = set() if merge else None
        self.ends: set[Any] = set()
        #: How often an outcome was seen, so that equal ones have equal numbers.
        self._outcomes: dict[str, int] = {}
        self._walk(self.setting.places, -1, 0)
        self.nest.close()
        branch.close()
        shelf.close()

    def _walk(self, places: tuple[Place, ...], last: int, preemptions: int) -> None:
        if self._seen is not None:
            state = (self._rows(), tuple(map(id, places)), last, preemptions)
            if state in self._seen:
                return
            self._seen.add(state)
        pending = [(root, call) for root, place in enumerate(places) for call in place.pending]
        if not pending:
            self.count += 1
            contents = tuple((table, self.nest.content(table)) for table in self.nest.tables())
            self.ends.add((contents, tuple(_told(place) for place in places)))
        for root, call in pending:
            cost = preemptions + (last not in (root, -1) and bool(places[last].pending))
            if self.preemptions is not None and cost > self.preemptions:
                continue
            now_us, ended_us = self.setting.moment(call)
            pushed = self.nest.push(call, now_us, call.seed)
            number = self._outcomes.setdefault(str(pushed.outcome), len(self._outcomes))
            moved = places[root].after(call, number, Answer(pushed.outcome, pushed.error, ended_us))
            self._walk((*places[:root], moved, *places[root + 1 :]), root, cost)
            self.nest.pop(self.nest.depth - 1)

    def _rows(self) -> str:
        """Every row with its number, in the order of a scan."""
        rows: list[Any] = []
        for table in [*self.nest.tables(), "sqlite_sequence"]:
            for columns in ("rowid, *", "*"):
                with contextlib.suppress(apsw.SQLError):
                    rows.append((table, self.nest._database.execute(f'select {columns} from "{table}"').fetchall()))
                    break
        return repr(rows)
