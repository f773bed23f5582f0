"""Reads the trace of a SQLite database into records.

This module must not know the writer; it reads beside it, on a connection of its own.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import apsw
import msgspec

from retroact.engine.sqlite.database import open_reader
from retroact.engine.sqlite.horizon import beyond, is_marked, read_horizon
from retroact.engine.sqlite.queries import queries
from retroact.engine.sqlite.relation import Relation, decode_changes
from retroact.engine.sqlite.scan import Scan
from retroact.engine.sqlite.verified import kept
from retroact.errors import DamagedTrace, UnknownRun
from retroact.trace.codec import chain, decode_cell, decode_json
from retroact.trace.record import Failure, Hashing, Outcome, Record, Run, RunId, RunState, Statement, StepNumber, Version
from retroact.trace.retention import Horizon
from retroact.trace.verification import Verified

if TYPE_CHECKING:
    from retroact.function.code import Code

T = TypeVar("T")
_failure = msgspec.json.Decoder(Failure).decode


class TraceReader:
    """The trace of one database. Safe for use by several threads, one at a time each."""

    def __init__(self, path: Path, database: apsw.Connection | None = None) -> None:
        """`database`: where the records are, when it is not the file at `path`, which then only names it."""
        self.path = path
        self._database = database or open_reader(path)
        self._sql = queries()
        self._lock = threading.Lock()
        self._functions: dict[int, tuple[str, str, str, str | None]] = {}
        self._texts: dict[int, str] = {}
        self._relations: dict[int, Relation] = {}

    def close(self) -> None:
        """Let the file go."""
        self._database.close()

    def ask(self, question: Callable[[apsw.Connection], T]) -> T:
        """Ask the database itself, beside whoever writes."""
        with self._lock:
            return question(self._database)

    def horizon(self) -> Horizon:
        """Where the kept past begins."""
        return self.ask(read_horizon)

    def last_version(self) -> Version:
        """The newest version."""
        return Version(self._all("last_version")[0][0] or 0)

    def run(self, run: RunId) -> Run:
        """One run. Raises UnknownRun."""
        rows = self._all("run", (run,))
        if not rows:
            raise UnknownRun(run=run, database=self.path)
        first, last = self._all("reach", (run,))[0]
        return msgspec.structs.replace(self.understand_run(rows[0]), first=first, last=last)

    def find_run(self, run: RunId) -> Run | None:
        """One run, or None."""
        rows = self._all("run", (run,))
        return self.understand_run(rows[0]) if rows else None

    def runs(self, *, since_us: int = 0, until_us: int = 2**62, most: int = -1) -> list[Run]:
        """Runs that began in a span of time, newest first."""
        return [self.understand_run(row) for row in self._all("runs", {"since": since_us, "until": until_us, "most": most})]

    def open_runs(self) -> list[Run]:
        """Runs without an outcome, oldest first."""
        return [self.understand_run(row) for row in self._all("open_runs")]

    def records_of(self, run: RunId) -> list[Record]:
        """What a run did, in commit order."""
        return [self.understand(row) for row in self._all("records_of_run", (run,))]

    def records_between(self, after: int, until: int) -> Iterator[Record]:
        """The records with after < version <= until, in commit order. Raises BeyondHistory when their details have been dropped."""
        step = 2000
        while after < until:
            top = min(after + step, until)
            rows = self._all("records_between", (after, top))
            horizon = self.horizon()  # in this order: what was read may have been dropped a moment before
            if after < horizon.version:
                raise beyond(horizon, after, self.path)
            for row in rows:
                yield self.understand(row)
            after = top

    def outcome(self, run: RunId, step: int) -> tuple[str, Outcome] | None:
        """The recorded function and outcome of an invocation, if it has been run."""
        rows = self._all("guard", (run, step))
        if not rows:
            return None
        value, failure, function = rows[0]
        return self._function(function)[0], _outcome(value, failure)

    def code(self, digest: str) -> Code | None:
        """The stored code of that hash."""
        from retroact.function.code import Code, Source  # noqa: PLC0415 - what only reads records does not load code

        rows = self._all("code", (digest,))
        if not rows:
            return None
        main, listed = rows[0]
        sources = tuple(Source(name=n, path=p, text=self._all("source", (h,))[0][0]) for n, p, h in decode_json(listed))
        return Code(main=main, sources=sources)

    def hashing(self, version: int) -> Hashing | None:
        """How the process hashed that wrote a version; None: a version of the platform wrote it that did not tell."""
        with self._lock:
            if not self._database.table_exists("main", "retroact_process"):
                return None
        rows = self._all("process_of", (version,))
        return Hashing(seed=rows[0][0], probe=rows[0][1]) if rows else None

    def runs_between(self, after: int, until: int) -> list[tuple[Version, RunId]]:
        """Which run wrote each of the versions with after < version <= until."""
        return self._all("runs_between", (after, until))

    def knows_code(self, digest: str) -> bool:
        """Whether the code of that hash is stored."""
        return bool(self._all("has_code", (digest,)))

    def verified(self) -> Verified | None:
        """What verification has found; None when nothing was ever verified."""
        with self._lock:
            return kept(self._database)

    def newest_fingerprint(self, function: str) -> str | None:
        """The fingerprint of the newest code of a function."""
        rows = self._all("newest_fingerprint", (function,))
        return rows[0][0] if rows else None

    def scan(self, runs: Sequence[RunId]) -> Scan:
        """All records from the first to the last of some runs, checked, and decoded when they are asked for.

        Raises UnknownRun, BeyondHistory, DamagedTrace."""
        scan = Scan(self, runs, self._all)
        # What was not decoded yet must be understood after the file was let go, too.
        self._functions, self._texts, self._relations = dict(scan.functions), dict(scan.texts), dict(scan.relations)
        return scan

    def verify(self, after: int = 0, until: int = 2**62) -> Version:
        """Check the chain of the records with after < version <= until, and return the last one. Raises DamagedTrace."""
        expected = max(after, self.horizon().version)
        for row in self.checked_rows(after, until):
            expected = row[0]
        return Version(expected)

    def checked_rows(self, after: int, until: int) -> Iterator[tuple[Any, ...]]:
        """The rows of the records with after < version <= until, each checked against its chain. Raises DamagedTrace."""
        horizon = self.horizon()
        if after <= horizon.version:
            after = horizon.version
            links: list[Any] = [(horizon.chain,)] if after else self._links(0)
        else:
            links = self._links(after)
        if not links:
            raise DamagedTrace(version=after, database=self.path, problem="it is missing", last_good=after - 1)
        previous, expected = links[0][0], after
        forgotten = max((limit.version for limit in horizon.tables.values()), default=0)
        for row in cast("Iterator[tuple[Any, ...]]", self._database.execute(self._sql["chained"], (after, until))):
            version, link = row[0], row[-1]
            if version != expected + 1:
                raise DamagedTrace(version=expected + 1, database=self.path, problem="it is missing", last_good=expected)
            # What a forgotten table has been taken out of no longer fits its digest; the chain goes on all the same.
            dropped = version <= forgotten and is_marked(row[-2])
            if not dropped and chain(previous, row[:-1]) != link:
                raise DamagedTrace(version=version, database=self.path, problem="its digest does not fit its content", last_good=expected)
            previous, expected = link, version
            yield row

    def _links(self, version: int) -> list[Any]:
        """The link of a record as a row, none where it is missing."""
        return self._all("link", (version,)) if version else [(0,)]

    def _all(self, name: str, parameters: Any = ()) -> list[Any]:
        with self._lock:
            return self._database.execute(self._sql[name], parameters).fetchall()

    def _function(self, number: int) -> tuple[str, str, str, str | None]:
        if number not in self._functions:
            self._functions = {row[0]: row[1:] for row in self._all("all_functions")}
        return self._functions[number]

    def _text(self, number: int) -> str:
        if number not in self._texts:
            self._texts = {n: text for text, n in self._all("all_sql")}
        return self._texts[number]

    def _changes(self, stored: str | None) -> tuple[Any, ...]:
        try:
            return decode_changes(self._relations, stored)
        except KeyError:
            self._relations = {row[0]: Relation.stored(*row) for row in self._all("all_relations")}
            return decode_changes(self._relations, stored)

    def understand(self, row: tuple[Any, ...]) -> Record:
        """Decode the row of a record. Raises DamagedTrace."""
        try:
            return self._understood(row)
        except (KeyError, IndexError, TypeError, ValueError, AttributeError, msgspec.MsgspecError) as error:
            problem = f"it cannot be read ({type(error).__name__}: {error})"
            raise DamagedTrace(version=row[0], database=self.path, problem=problem, last_good=row[0] - 1) from error

    def _understood(self, row: tuple[Any, ...]) -> Record:
        version, run, step, attempt, function, arguments, snapshot, began, elapsed, value, failure, statements, changes = row
        name, kind, fingerprint, code = self._function(function)
        return Record(
            version=version,
            run=run,
            step=step,
            attempt=attempt,
            function=name,
            kind=kind,
            fingerprint=fingerprint,
            code=code,
            arguments=arguments,
            snapshot=snapshot,
            began_us=began,
            elapsed_us=elapsed,
            outcome=_outcome(value, failure),
            statements=tuple(self._statement(s) for s in decode_json(statements)) if statements else (),
            changes=self._changes(changes),
        )

    def _statement(self, entry: list[Any]) -> Statement:
        number, parameters, count, *digests = entry
        return Statement(
            sql=self._text(number),
            parameters={name: decode_cell(value) for name, value in parameters.items()},
            count=count,
            ordered=digests[0] if digests else None,
            unordered=digests[-1] if digests else None,
        )

    def understand_run(self, row: tuple[Any, ...]) -> Run:
        """Decode the row of a run."""
        run, function, arguments, state, value, failure, reason, began, ended, parent, parent_step = row
        name, kind, fingerprint, code = self._function(function)
        outcome = _outcome(value, failure) if state in ("committed", "aborted") else None
        return Run(
            run=run,
            function=name,
            kind=kind,
            fingerprint=fingerprint,
            code=code,
            arguments=arguments,
            state=RunState(state),
            outcome=outcome,
            began_us=began,
            ended_us=ended,
            parent=parent,
            parent_step=parent_step if parent_step is None else StepNumber(parent_step),
            reason=reason,
        )


def _outcome(value: str | None, failure: str | None) -> Outcome:
    return Outcome(value=value) if failure is None else Outcome(failure=_failure(failure))
