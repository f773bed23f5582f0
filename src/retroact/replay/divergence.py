"""Is what a body did what the record says? The verdict, and where and why they part, in sentences.

Pure comparison of values. This module must not know how a body is run again.
"""

from __future__ import annotations

import dataclasses
import enum

from retroact.engine.contract import Trial
from retroact.trace.record import Change, Outcome, Record, Statement


class Verdict(enum.StrEnum):
    """How faithful the replay of one transaction was."""

    IDENTICAL = "identical"
    #: Every result has the same rows, at least one in another order (a SELECT without ORDER BY).
    ORDER_ONLY = "order-only"
    #: It cannot be executed again, so its recorded effects are taken: the reason says why.
    RECORDED_RESULTS = "recorded-results"
    DIVERGED = "diverged"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Divergence:
    """Where a replayed transaction first did something else than its record says."""

    #: Number of the statement, from 1; None when it was the changes or the outcome.
    statement: int | None
    #: What was compared: statement, parameters, result, changes, outcome.
    part: str
    recorded: str
    replayed: str
    sql: str | None = None

    def explain(self, record: Record) -> str:
        """Let / Then / because."""
        where = f"statement {self.statement}" if self.statement else f"its {self.part}"
        lines = [
            f"Let T = {record.function} {record.arguments} (run {record.run}, step {record.step}, version {record.version}).",
            f"Then T diverged at {where}: the record says {self.recorded}, the replay did {self.replayed},",
            f"because {_BECAUSE[self.part]}.",
        ]
        if self.sql:
            lines.insert(1, f"Let S = {' '.join(self.sql.split())}.")
        return "\n".join(lines)


_BECAUSE = {
    "statement": "the body took another path: something it decides by is neither an argument, nor in the database, nor recorded",
    "parameters": "the body computed other parameters: something it uses is neither an argument, nor in the database, nor recorded",
    "result": "the same statement found other rows: the state or the record was changed after the fact, or the SQL is not deterministic",
    "changes": "the same statements changed other rows: a trigger, a default or a function of the SQL is not deterministic",
    "outcome": "the same statements led to another outcome: something the body computes with is not recorded",
}


def compare(record: Record, trial: Trial) -> tuple[Verdict, Divergence | None]:
    """The verdict over one transaction that was executed again."""
    order_differs = False
    for number, (then, now) in enumerate(zip(record.statements, trial.statements, strict=False), start=1):
        divergence = _statement(number, then, now)
        if divergence is not None:
            return Verdict.DIVERGED, divergence
        order_differs = order_differs or then.ordered != now.ordered
    divergence = _rest(record.statements, trial.statements) or _changes(record.changes, trial.changes)
    divergence = divergence or _outcome(record.outcome, trial.outcome)
    if divergence is not None:
        return Verdict.DIVERGED, divergence
    return (Verdict.ORDER_ONLY if order_differs else Verdict.IDENTICAL), None


def _statement(number: int, then: Statement, now: Statement) -> Divergence | None:
    if then.sql != now.sql:
        return Divergence(statement=number, part="statement", recorded=then.sql, replayed=now.sql)
    if then.parameters != now.parameters:
        return Divergence(statement=number, part="parameters", recorded=str(then.parameters), replayed=str(now.parameters), sql=then.sql)
    if then.count != now.count or then.unordered != now.unordered:
        return Divergence(statement=number, part="result", recorded=_result(then), replayed=_result(now), sql=then.sql)
    return None


def _rest(then: tuple[Statement, ...], now: tuple[Statement, ...]) -> Divergence | None:
    if len(then) == len(now):
        return None
    number = min(len(then), len(now)) + 1
    nothing = "no further statement"
    recorded = then[number - 1].sql if len(then) >= number else nothing
    replayed = now[number - 1].sql if len(now) >= number else nothing
    return Divergence(statement=number, part="statement", recorded=recorded, replayed=replayed)


def _changes(then: tuple[Change, ...], now: tuple[Change, ...]) -> Divergence | None:
    if then == now:
        return None
    first = next((i for i, (a, b) in enumerate(zip(then, now, strict=False)) if a != b), min(len(then), len(now)))
    recorded = _change(then[first]) if first < len(then) else "no further change"
    replayed = _change(now[first]) if first < len(now) else "no further change"
    return Divergence(statement=None, part="changes", recorded=recorded, replayed=replayed)


def _outcome(then: Outcome, now: Outcome) -> Divergence | None:
    same = (
        (then.failure.error, then.failure.message) == (now.failure.error, now.failure.message)
        if then.failure and now.failure
        else then == now
    )
    if same:
        return None
    return Divergence(statement=None, part="outcome", recorded=show_outcome(then), replayed=show_outcome(now))


def show_outcome(outcome: Outcome) -> str:
    """An outcome in a few words."""
    if outcome.failure is not None:
        return f"aborted with {outcome.failure.error.rpartition('.')[2]}({outcome.failure.message})"
    return f"committed {outcome.value}"


def _result(statement: Statement) -> str:
    rows = "row" if statement.count == 1 else "rows"
    return f"{statement.count} {rows} (digest {statement.unordered})" if statement.unordered else f"{statement.count} {rows} changed"


def _change(change: Change) -> str:
    return f"{change.verb.name.lower()} of {change.table} {change.rowid}: {change.before} -> {change.after}"
