"""Reads the trace of a Postgres database into records.

A version here names a record. It is no place in the order of commits, and tells nothing of what a transaction saw: that is its snapshot.

This module must not know who writes; it reads beside them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import msgspec
import psycopg

from retroact.engine.clock import Clock
from retroact.engine.postgres import address
from retroact.engine.postgres.literal import literal
from retroact.engine.postgres.patience import Patience
from retroact.engine.postgres.pool import Pool
from retroact.engine.postgres.queries import queries
from retroact.errors import BadArguments, DamagedTrace, UnknownRun, Unreachable
from retroact.trace.codec import chain, decode_cell, decode_json
from retroact.trace.record import Failure, Outcome, Record, Run, RunId, RunState, Statement, StepNumber, Version
from retroact.trace.retention import Horizon

if TYPE_CHECKING:
    from retroact.function.code import Code

_failure = msgspec.json.Decoder(Failure).decode
_STEP = 2000


class TraceReader:
    """The trace of one database. Safe for use by several threads."""

    def __init__(self, pool: Pool, clock: Clock) -> None:
        self.path = address.shown(pool.url)
        self._pool = pool
        self._patience = Patience(pool, clock)
        self._sql = queries()
        self._texts: dict[int, str] = {}
        #: Whose open runs are asked for; None: everybody's.
        self.process: int | None = None

    @classmethod
    def on(cls, url: str, clock: Clock) -> TraceReader:
        """A reader with connections of its own. Raises Unreachable, NoProject, NewerDatabase."""

        def prepare(session: Any) -> None:
            address.check(session, url)
            session.prepare_own()

        pool = Pool(url, most=2, prepare=prepare)
        pool.give_back(pool.take())
        return cls(pool, clock)

    def close(self) -> None:
        """Let its connections go."""
        self._pool.close()

    def last_version(self) -> Version:
        """The greatest number that a record was given."""
        return Version(self._all("last_version")[0][0])

    def run(self, run: RunId) -> Run:
        """One run. Raises UnknownRun."""
        found = self.find_run(run)
        if found is None:
            raise UnknownRun(run=run, database=self.path)
        first, last = self._all("reach", run=run)[0]
        return msgspec.structs.replace(found, first=first, last=last)

    def find_run(self, run: RunId) -> Run | None:
        """One run, or None."""
        named = self._literal(run)
        rows = self._rows(f"execute retroact_run({named})") if self._rows(f"execute retroact_present({named})") else None
        return _run(rows[0]) if rows else None

    def runs(self, *, since_us: int = 0, until_us: int = 2**62, most: int = -1) -> list[Run]:
        """Runs that began in a span of time, newest first."""
        return [_run(row) for row in self._all("runs", since=since_us, until=until_us, most=None if most < 0 else most)]

    def open_runs(self) -> list[Run]:
        """Runs without an outcome, oldest first: for an App, its own, and those that it takes over now from processes that have ended."""
        if self.process is not None:
            self._all("take_over", process=self.process)
        return [_run(row) for row in self._all("open_runs", process=self.process)]

    def records_of(self, run: RunId) -> list[Record]:
        """What a run did, in the order in which it was recorded."""
        return [self._record(row) for row in self._all("records_of_run", run=run)]

    def records_between(self, after: int, until: int) -> Iterator[Record]:
        """The records with after < version <= until, in the order of their numbers, which is not that of the commits."""
        for row in self._all("records_between", after=after, until=until):
            yield self._record(row)

    def outcome(self, run: RunId, step: int) -> tuple[str, Outcome, bool] | None:
        """The recorded function and outcome of an invocation, if it has been run, and whether it is the beginning of a workflow."""
        rows = self._rows(f"execute retroact_outcome({self._literal(run)},{int(step)})")
        if not rows:
            return None
        name, value, failure, opens = rows[0]
        return name, _outcome(value, failure), bool(opens)

    def knows_code(self, digest: str) -> bool:
        """Whether the code of that hash is stored."""
        return bool(self._all("code", hash=digest))

    def horizon(self) -> Horizon:
        """Nothing is ever dropped here: the beginning."""
        return Horizon()

    def code(self, digest: str) -> Code | None:
        """The stored code of that hash."""
        from retroact.function.code import Code, Source  # noqa: PLC0415 - what only reads records does not load code

        rows = self._all("code", hash=digest)
        if not rows:
            return None
        main, listed = rows[0]
        sources = tuple(Source(name=n, path=p, text=self._all("source", hash=h)[0][0]) for n, p, h in decode_json(listed))
        return Code(main=main, sources=sources)

    def verify(self, after: int = 0, until: int = 2**62) -> Version:
        """Check the seals of the records with after < version <= until, and return the last one. Raises DamagedTrace."""
        last, place = after, ("", -1)
        while True:
            rows = self._all("sealed", run=place[0], step=place[1], after=after, until=until, most=_STEP)
            for row in rows:
                last = max(last, self._sealed(row))
            if len(rows) < _STEP:
                return Version(last)
            place = (rows[-1][1], rows[-1][2])

    def _sealed(self, row: tuple[Any, ...]) -> int:
        """The version of a record whose seal fits. Raises DamagedTrace."""
        version, run, step, attempt, function, arguments, began, *rest, opens, parent, parent_step, seal = row
        sealed = (
            (run, function, arguments, began, parent, parent_step) if opens else (run, step, attempt, function, arguments, began, *rest)
        )
        if chain(0, sealed) != seal:
            problem = f"it is step {step} of run {run}, and its digest does not fit its content"
            raise DamagedTrace(version=version, database=self.path, problem=problem, last_good=version - 1)
        return int(version)

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Rows of a reading statement of ours."""
        return self._rows(sql)

    def _all(self, name: str, **given: Any) -> list[tuple[Any, ...]]:
        return self._rows(self._sql[name].format(**{key: self._literal(value) for key, value in given.items()}))

    def _rows(self, sql: str) -> list[tuple[Any, ...]]:
        try:
            return self._patience.run(lambda session: session.rows(sql))
        except psycopg.Error as error:
            raise Unreachable(database=self.path, problem=" ".join(str(error).split())) from error

    def _literal(self, value: Any) -> str:
        try:
            return literal(value)
        except ValueError as error:
            raise BadArguments(function="the trace", problem=f"{value!r}: {error}", signature="text") from None

    def _text(self, number: int) -> str:
        if number not in self._texts:
            self._texts = {int(n): text for text, n in self._all("all_sql")}
        return self._texts[number]

    def _record(self, row: tuple[Any, ...]) -> Record:
        try:
            return self._understood(row)
        except (KeyError, IndexError, TypeError, ValueError, AttributeError, msgspec.MsgspecError) as error:
            problem = f"it cannot be read ({type(error).__name__}: {error})"
            raise DamagedTrace(version=row[0], database=self.path, problem=problem, last_good=row[0] - 1) from error

    def _understood(self, row: tuple[Any, ...]) -> Record:
        version, run, step, attempt, arguments, began, elapsed, value, failure, statements, visible, transaction, *named = row
        name, kind, fingerprint, code = named
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
            snapshot=Version(0),
            began_us=began,
            elapsed_us=elapsed,
            outcome=_outcome(value, failure),
            statements=tuple(self._statement(entry) for entry in decode_json(statements)) if statements else (),
            visible=visible,
            transaction=None if transaction is None else int(transaction),
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


def _run(row: tuple[Any, ...]) -> Run:
    run, name, kind, fingerprint, code, arguments, state, value, failure, reason, began, ended, parent, parent_step = row
    return Run(
        run=run,
        function=name,
        kind=kind,
        fingerprint=fingerprint,
        code=code,
        arguments=arguments,
        state=RunState(state),
        outcome=_outcome(value, failure) if state in ("committed", "aborted") else None,
        began_us=began,
        ended_us=ended,
        parent=parent,
        parent_step=parent_step if parent_step is None else StepNumber(parent_step),
        reason=reason,
    )


def _outcome(value: str | None, failure: str | None) -> Outcome:
    return Outcome(value=value) if failure is None else Outcome(failure=_failure(failure))
