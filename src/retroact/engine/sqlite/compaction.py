"""Forgets the past beyond a horizon, beside traffic, so that a crash at any moment leaves it either before or after.

The horizon is a version that a logged commit left, and so is where a table is forgotten up to: no state from there on is reached from
records of before. Moving it is one small transaction in the database, and that is the moment at which the past beyond it is
forgotten: from then on it is refused. Then, in many small transactions, what lies beyond is cleared away: the details of records
(statements, row changes, arguments), the page log before the commit of the horizon, and the room in the file. Every one of them may be
the last for now; whoever compacts next goes on from `Horizon.cleared`, and the page log can be swept any number of times.

Kept in any case are the outcome of every invocation, as long as `Retention.outcomes` says, and everything of a run without an outcome.

This module must not know who asks for it, nor when; and it never looks at the clock: it is told what time it is.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import apsw
import msgspec

from retroact.engine.sqlite.horizon import REASON, SQL, details_weight, mark, read_horizon, write_horizon
from retroact.engine.sqlite.pagelog import PageLog
from retroact.engine.sqlite.queries import fetch, queries
from retroact.trace.codec import decode_json, encode_json
from retroact.trace.record import Verb
from retroact.trace.retention import Horizon, Limit, Retention

if TYPE_CHECKING:
    from retroact.engine.sqlite.engine import SqliteEngine
    from retroact.engine.sqlite.recorder import Recorder

#: Records in one transaction: few enough that a caller who waits for it does not notice.
RECORDS_AT_ONCE = 200
PAGES_AT_ONCE = 100
#: How often the horizon is moved on to see whether what is left is small enough, and how often that is corrected afterwards.
_ROUNDS = 12
#: A page log is not made smaller than this: a few keyframes and what SQLite itself needs.
_LEAST_BYTES = 64 * 1024
_TRIES = 3

Pace = Callable[[], None]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Compacted:
    """What was dropped, or would be."""

    before: Horizon
    after: Horizon
    #: Bytes of history (page log and details of records) before and after.
    bytes_before: int
    bytes_after: int
    dry: bool = False

    @property
    def moved(self) -> bool:
        """Whether anything was forgotten."""
        return (
            self.before.version != self.after.version
            or self.before.tables != self.after.tables
            or self.before.outcomes != self.after.outcomes
        )


class Compactor:
    """Compacts the history of a database that this process writes. For use by one thread at a time."""

    def __init__(self, engine: SqliteEngine, pace: Pace = lambda: None) -> None:
        """`pace` is called between two transactions, and may wait, or raise to break off."""
        self._engine = engine
        self._pace = pace
        self._sql = queries(SQL)

    def compact(self, retention: Retention, now_us: int, *, dry: bool = False, at_least: float = 0.0) -> Compacted:
        """Forget what the retention does not keep, if that is at least a share of what is kept now.

        Raises CommitFailed, apsw.Error; what was begun is gone on with next time."""
        engine = self._engine
        engine.settle()
        if engine.historian is not None:
            engine.historian.store()
        before = self._ask(read_horizon)
        size_before = self._size(before)
        after = self._small_enough(before, self._chosen(before, retention, now_us), retention.size_bytes)
        if dry:
            return Compacted(before=before, after=after, bytes_before=size_before, bytes_after=self._foreseen(before, after), dry=True)
        if at_least and not self._worthwhile(before, after, at_least):
            return Compacted(before=before, after=before, bytes_before=size_before, bytes_after=size_before)
        self._move(before, after)
        self._clear()
        limit = retention.size_bytes
        for _ in range(_TRIES):  # clearing away is logged too, so that it may take another round
            size = self._size(after)
            if limit is None or size <= max(limit, _LEAST_BYTES):
                break
            further = self._further(after, 1 - limit / size)
            if further.version == after.version:
                break
            self._move(after, further)
            self._clear()
            after = further
        return Compacted(before=before, after=self._ask(read_horizon), bytes_before=size_before, bytes_after=self._size(after))

    # --- where the horizon is to be

    def _worthwhile(self, before: Horizon, after: Horizon, share: float) -> bool:
        last = self._engine.trace.last_version()
        moves = [(before.version, after.version), (before.outcomes, after.outcomes)]
        moves += [(before.tables.get(table, before).version, limit.version) for table, limit in after.tables.items()]
        return any(then > now and then - now >= share * (last - now) for now, then in moves)

    def _chosen(self, before: Horizon, retention: Retention, now_us: int) -> Horizon:
        """The horizon by age."""
        after = before
        age = retention.age_us
        if age is not None:
            after = self._at(before, self._version_by(now_us - age))
        if retention.outcomes_us is not None:
            gone = self._limit_by(now_us - retention.outcomes_us).version
            after = msgspec.structs.replace(after, outcomes=max(after.outcomes, min(gone, after.version)))
        tables = dict(after.tables)
        for table, table_us in retention.table_ages_us().items():
            limit = self._limit_at(self._version_by(now_us - table_us))
            if limit.version > max(after.version, tables.get(table, Limit()).version):
                tables[table] = msgspec.structs.replace(limit, cleared=tables.get(table, limit).cleared)
        tables = {table: limit for table, limit in tables.items() if limit.version > after.version}
        return msgspec.structs.replace(after, tables=tables)

    def _small_enough(self, before: Horizon, after: Horizon, limit: int | None) -> Horizon:
        """The horizon moved on until what is kept is foreseen to be within the limit."""
        if limit is None or self._engine.historian is None:
            return after
        for _ in range(_ROUNDS):
            size = self._foreseen(before, after)
            if size <= max(limit, _LEAST_BYTES):
                break
            further = self._further(after, 1 - limit / size)
            if further.version == after.version:
                break
            after = further
        return after

    def _version_by(self, us: int) -> int:
        """The version of the newest logged commit that was durable by a time. After a gap the page log begins at a time that it does
        not know, so that the records are asked too."""
        begun = self._limit_by(us).version
        if self._engine.historian is None:
            return begun
        log = PageLog(self._engine.path)
        try:
            commit = log.newest_by(us)
            return 0 if commit is None or commit.version > begun else commit.version
        finally:
            log.close()

    def _limit_by(self, us: int) -> Limit:
        rows = self._ask(lambda database: fetch(database, self._sql["version_by"], (us,)))
        return Limit(version=rows[0][0], began_us=rows[0][1]) if rows else Limit()

    def _limit_at(self, version: int) -> Limit:
        rows = self._ask(lambda database: fetch(database, self._sql["version_at"], (version,)))
        return Limit(version=rows[0][0], began_us=rows[0][1]) if rows else Limit()

    def _at(self, before: Horizon, version: int) -> Horizon:
        """The horizon moved to a version, if that is further."""
        rows = self._ask(lambda database: fetch(database, self._sql["version_at"], (version,)))
        if version <= before.version or not rows:
            return before
        tables = {table: limit for table, limit in before.tables.items() if limit.version > version}
        return msgspec.structs.replace(before, version=version, began_us=rows[0][1], chain=rows[0][2], tables=tables)

    def _further(self, horizon: Horizon, share: float) -> Horizon:
        """The horizon moved on by a share of the commits that are kept, and always by something, if there is anything."""
        if self._engine.historian is None:
            return horizon
        log = PageLog(self._engine.path)
        try:
            first, last = log.commit_of(max(horizon.version, log.horizon.version)), log.last_commit
            number = min(first.number + max(1, int((last.number - first.number) * share)), last.number)
            return self._at(horizon, log.commit(number).version)
        finally:
            log.close()

    def _commit_of(self, version: int) -> int:
        """The number of the commit that the page log is to begin with: it may begin later already, after a gap."""
        log = PageLog(self._engine.path)
        try:
            return log.commit_of(max(version, log.horizon.version)).number
        finally:
            log.close()

    # --- how large it is

    def _size(self, horizon: Horizon) -> int:
        """Bytes of the page log in use, and of the details of records."""
        size = self._weight(horizon.cleared, 2**62)
        if self._engine.historian is not None:
            size += self._engine.historian.weight()
        return size

    def _weight(self, after: int, until: int) -> int:
        return self._ask(lambda database: details_weight(database, after, until))

    def _foreseen(self, before: Horizon, after: Horizon) -> int:
        size = self._size(before)
        if after.version > before.version:
            size -= self._weight(before.cleared, after.version)
            if self._engine.historian is not None:
                log = PageLog(self._engine.path)
                size -= log.weigh(log.commit_of(after.version).number)[1]
                log.close()
        return size

    # --- forgetting

    def _move(self, before: Horizon, after: Horizon) -> None:
        if after == before:
            return

        def work(recorder: Recorder) -> None:
            present = read_horizon(recorder.database)
            write_horizon(recorder.database, msgspec.structs.replace(after, cleared=present.cleared))

        self._engine.in_transaction(work, "compact")

    def _clear(self) -> None:
        """Clear away whatever lies beyond the horizon and is still there."""
        horizon = self._ask(read_horizon)
        self._clear_records(horizon)
        for table, limit in horizon.tables.items():
            self._clear_table(table, max(horizon.version, limit.cleared), limit.version)
        if horizon.outcomes:
            self._forget_outcomes(horizon)
        if self._engine.historian is not None and horizon.version:
            self._clear_pages(horizon)

    def _clear_records(self, horizon: Horizon) -> None:
        after = horizon.cleared
        protected = horizon.version
        while after < horizon.version:
            until = min(after + RECORDS_AT_ONCE, horizon.version)
            window = {"after": after, "until": until, "horizon": horizon.version}

            def work(recorder: Recorder, window: dict[str, Any] = window) -> int | None:
                database = recorder.database
                runs = encode_json([run for (run,) in fetch(database, self._sql["open_runs"])]).decode()
                database.execute(self._sql["clear_runs"], window)
                database.execute(self._sql["clear_records"], {**window, "open": runs})
                first = (
                    database.execute(self._sql["first_protected"], {"open": runs, "until": horizon.version}).get if runs != "[]" else None
                )
                cleared = window["until"] if first is None else min(window["until"], first - 1)
                now = read_horizon(database)
                write_horizon(database, msgspec.structs.replace(now, cleared=max(now.cleared, cleared)))
                return first

            first = self._engine.in_transaction(work, "compact")
            protected = protected if first is None else min(protected, first)
            after = until
            self._pace()

    def _clear_table(self, table: str, after: int, until: int) -> None:
        """Take what records hold of a table out of them."""
        texts = {row[0] for row in self._ask(lambda d: fetch(d, self._sql["texts_of_table"], {"name": table}))}
        relations = {row[0] for row in self._ask(lambda d: fetch(d, self._sql["relations_of_table"], {"name": table}))}
        if not relations:
            return  # never written
        stands_for = mark(min(relations))
        while after < until:
            top = min(after + RECORDS_AT_ONCE, until)

            def work(recorder: Recorder, window: tuple[int, int] = (after, top)) -> None:
                database = recorder.database
                for version, statements, changes in fetch(database, self._sql["details"], window):
                    cleared = _without(statements, changes, texts, relations, stands_for)
                    if cleared is not None:
                        database.execute(self._sql["set_details"], (*cleared, version))
                now = read_horizon(database)
                limit = msgspec.structs.replace(now.tables[table], cleared=window[1])
                write_horizon(database, msgspec.structs.replace(now, tables={**now.tables, table: limit}))

            self._engine.in_transaction(work, "compact")
            after = top
            self._pace()

    def _forget_outcomes(self, horizon: Horizon) -> None:
        after = 0
        while True:
            following = self._ask(lambda database, after=after: database.execute(self._sql["next_outcome"], (after,)).get)
            if following is None or following > horizon.outcomes:
                break
            after = following - 1
            window = {"after": after, "until": min(after + RECORDS_AT_ONCE, horizon.outcomes)}

            def work(recorder: Recorder, window: dict[str, Any] = window) -> None:
                runs = encode_json([run for (run,) in fetch(recorder.database, self._sql["open_runs"])]).decode()
                recorder.database.execute(self._sql["forget_outcomes"], {**window, "open": runs})

            self._engine.in_transaction(work, "compact")
            after = window["until"]
            self._pace()
        until_us = self._ask(lambda d: fetch(d, self._sql["version_at"], (horizon.outcomes,)))
        if until_us:
            self._engine.in_transaction(lambda r: r.database.execute(self._sql["forget_runs"], {"until_us": until_us[0][1]}), "compact")

    def _clear_pages(self, horizon: Horizon) -> None:
        historian = self._engine.historian
        assert historian is not None, "there is a page log to clear"
        historian.store()  # clearing the records was logged too; the room for it is given back with the rest
        number = self._commit_of(horizon.version)
        historian.exclusively(lambda log: log.begin_at(number, REASON))
        page: int | None = 0
        while page is not None:
            here = page
            page = historian.exclusively(lambda log, here=here: log.sweep(here, PAGES_AT_ONCE)).next_page
            self._pace()
        while historian.exclusively(lambda log: log.forget_commits()):
            self._pace()
        while historian.exclusively(lambda log: log.give_back(PAGES_AT_ONCE)):
            self._pace()

    def _ask(self, question: Callable[[apsw.Connection], Any]) -> Any:
        return self._engine.trace.ask(question)


def _without(
    statements: str | None, changes: str | None, texts: set[int], relations: set[int], stands_for: list[Any]
) -> tuple[str | None, str | None] | None:
    """A record's statements and changes without what they hold of a table; None when that is nothing."""
    listed: list[Any] = decode_json(statements) if statements else []
    noted: list[Any] = decode_json(changes) if changes else []
    touched = any(entry[0] in texts for entry in listed) or any(entry[0] in relations for entry in noted)
    if not touched or stands_for in noted:
        return None
    listed = [[entry[0], {}, entry[2]] if entry[0] in texts else entry for entry in listed]
    noted = [entry for entry in noted if entry[0] not in relations]
    place = 1 if noted and noted[0][1] == Verb.SCHEMA else 0
    noted.insert(place, stands_for)
    return encode_json(listed).decode() if listed else None, encode_json(noted).decode()
