"""What a debugging session shows: where it is, what happened meanwhile, statements with their results, who wrote what.

This module must not know the prompt, nor how anything is replayed.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Sequence
from typing import Any

from retroact.cli.output import Cell, out, paint, table, width
from retroact.cli.shown import count
from retroact.cli.times import local
from retroact.diagram import phrase
from retroact.engine.contract import Watched
from retroact.provenance.transaction import Written, rows_read
from retroact.provenance.writers import KeyColumns, Row, row_after
from retroact.replay.divergence import Verdict
from retroact.replay.replayer import Replayed, WorkflowReplayed
from retroact.replay.session import Scene, Session
from retroact.replay.stage import Call
from retroact.trace.record import Record, Run

VERDICT_STYLE = {Verdict.IDENTICAL: "green", Verdict.ORDER_ONLY: "cyan", Verdict.RECORDED_RESULTS: "yellow", Verdict.DIVERGED: "red"}
#: No more of these at a time.
_MOST_MEANWHILE = 6
_MOST_ROWS = 40
_MOST_RESULT_ROWS = 5


class Glance(abc.ABC):
    """Prints what there is to see wherever a transaction is stopped."""

    def __init__(self) -> None:
        #: The head of what is under way, until something is stopped in it: what runs through is not told.
        self._head: Callable[[], None] | None = None

    def stopped(self) -> None:
        """Something is stopped: say where this is, if it has not been said."""
        head, self._head = self._head, None
        if head is not None:
            head()

    @abc.abstractmethod
    def trace(self) -> None:
        """Where this is among the transactions."""
        ...

    def rows(self, columns: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> None:
        """The answer to a question at the prompt."""
        _table(columns, rows, _MOST_ROWS)

    def before(self, statement: Watched) -> None:
        """The statement that comes next."""
        out(f"{paint(f'before statement {statement.number}:', 'cyan')} {statement_line(statement)}")

    def statements(self, made: Sequence[Watched], at: Watched | None) -> None:
        """The statements of a transaction, with their results."""
        if not made and at is None:
            out("no statement yet")
        for statement in made:
            out(f"{paint(f'{statement.number:>3}', 'dim')}  {statement_line(statement)}")
            result_table(statement, most=_MOST_RESULT_ROWS)
        if at is not None:
            out(f"{paint(f'{at.number:>3}', 'dim')}  {statement_line(at)}\n     {paint('not executed yet', 'dim')}")

    def writers(self, made: Sequence[Watched], shown: Sequence[Sequence[Cell | str]], when: str) -> None:
        """Rows that the statements read, with who wrote them and `when`."""
        tables = sorted({name for s in made for name in s.reads.tables})
        if not shown and not tables:
            out("it has read no row yet" if made else "no statement yet")
            return
        if shown:
            table(["row", when, "run", "function", "which did"], [list(row) for row in shown], right=(1,), give=4)
        for name in tables:
            out(f"{name}: read in a way that cannot be taken apart into rows, so this is known of the table only")


class Sights(Glance):
    """Prints what there is to see of a session."""

    def __init__(self, session: Session, complain: Callable[[str], None]) -> None:
        super().__init__()
        self._session = session
        self._complain = complain
        self._verdicts: dict[int, Replayed] = {}

    # --- where the session is ------------------------------------------------------------------------------------------------

    def transaction(self, scene: Scene) -> None:
        """A transaction is under way."""
        self._head = lambda: self._show_transaction(scene)

    def workflow(self, run: Run) -> None:
        """A workflow is under way."""
        self._head = lambda: self._show_workflow(run)

    def _show_transaction(self, scene: Scene) -> None:
        record = scene.record
        out()
        if scene.until > 1:
            rule(f"back in transaction {scene.place + 1} of {scene.total}, before its statement {scene.until}")
            return
        step = f", step {record.step}" if record.step else ""
        rule(f"transaction {scene.place + 1} of {scene.total}", f"version {record.version}", f"run {record.run}{step}", _clock(record))
        out(f"   {paint(phrase.shorten_middle(phrase.call(record.function, record.arguments), width() - 3), 'bold')}")
        self._meanwhile(scene)

    def _show_workflow(self, run: Run) -> None:
        out()
        rule("workflow", f"run {run.run}")
        out(f"   {paint(phrase.shorten_middle(phrase.call(run.function, run.arguments), width() - 3), 'bold')}")

    def answered(self, _call: Call, record: Record) -> None:
        """A call that is not run again."""
        if self._head is not None:
            return
        called = phrase.call(record.function, record.arguments)
        said = f"{called} is answered from the record: {phrase.outcome(record.outcome)}"
        out(paint(f"   {phrase.shorten_middle(said, width() - 3)}", "dim"))

    def replayed(self, replayed: Replayed) -> None:
        """The verdict on a transaction."""
        self._verdicts[replayed.record.version] = replayed
        if replayed.verdict is Verdict.DIVERGED:
            self.stopped()
        if self._head is not None:
            return
        verdict = paint(replayed.verdict.value, VERDICT_STYLE[replayed.verdict])
        outcome = replayed.record.outcome
        word = "committed" if outcome.committed else "aborted"
        out(f"   {replayed.record.function}: {verdict}, {word} {phrase.shorten_middle(phrase.outcome(outcome), 60)}")
        if replayed.divergence is not None:
            for line in replayed.divergence.explain(replayed.record).splitlines():
                out(paint(f"      {line}", "red"))
        elif replayed.reason:
            out(f"      {replayed.reason}")

    def workflow_replayed(self, replayed: WorkflowReplayed) -> None:
        """The verdict on a workflow."""
        if self._head is not None and replayed.verdict is Verdict.IDENTICAL:
            return
        verdict = paint(replayed.verdict.value, VERDICT_STYLE[replayed.verdict])
        out(f"   {replayed.run.function} (run {replayed.run.run}): {verdict}{f', {replayed.reason}' if replayed.reason else ''}")

    def trace(self) -> None:
        """The transactions of the session, with what became of those that were replayed."""
        rows: list[list[Cell | str]] = []
        for place, record in enumerate(self._session.records):
            here = place == self._session.place
            done = self._verdicts.get(record.version) if place < self._session.place else None
            word = "here" if here and self._session.executing else "next" if here else ""
            verdict = Cell(done.verdict.value, VERDICT_STYLE[done.verdict]) if done else Cell(word, "bold")
            called = phrase.call(record.function, record.arguments)
            mark = Cell("->" if here else "", "bold")
            rows.append([mark, str(record.version), record.run, str(record.step or ""), called, verdict])
        table(["", "version", "run", "step", "call", ""], rows, right=(1, 3), give=4)

    def who(self, made: Sequence[Watched], record: Record) -> None:
        """Who wrote the rows that were read."""
        key_columns = self._session.state().key_columns
        read = rows_read(self._session.history, record, made, key_columns)
        self.writers(made, [[row_name(w.row), *writer_cells(w, key_columns)] for w in read], "version")

    # --- how -----------------------------------------------------------------------------------------------------------------

    def _meanwhile(self, scene: Scene) -> None:
        record = scene.record
        saw = f"it saw version {record.snapshot}" if record.snapshot else "it saw the empty beginning"
        others = self._session.meanwhile(scene.place)
        if not others:
            out(paint(f"   {saw}", "dim"))
            return
        out(paint(f"   {saw}. Since the transaction before it of this run, others had done:", "dim"))
        shown: list[list[Cell | str]] = [
            [str(r.version), r.run, r.function, Cell(phrase.flat(phrase.most_telling(r.changes) or ""), "cyan")]
            for r in others[-_MOST_MEANWHILE:]
        ]
        table(["", "", "", ""], shown, right=(0,), indent="      ")
        if len(others) > len(shown):
            out(paint(f"      and {len(others) - len(shown):,} before them", "dim"))


def rule(*parts: str) -> None:
    """A line that begins something."""
    text = " · ".join(parts)
    room = max(width() - len(text) - 5, 2)
    out(f"{paint('──', 'dim')} {paint(parts[0], 'cyan')}{text[len(parts[0]) :]} {paint('─' * min(room, 60), 'dim')}")


def _clock(record: Record) -> str:
    moment = local(record.began_us)
    return f"{moment:%Y-%m-%d %H:%M:%S}.{moment.microsecond // 1000:03}"


def statement_line(statement: Watched) -> str:
    """A statement with its parameters, on a line."""
    given = ", ".join(f":{name} = {phrase.cell(value)}" for name, value in statement.parameters.items())
    sql = " ".join(statement.sql.split())
    return phrase.shorten_middle(f"{sql}  {paint(phrase.flat(given), 'dim')}".rstrip(), width() * 2)


def result_table(statement: Watched, *, most: int) -> None:
    """What came of a statement: its rows, or the rows that it changed."""
    if statement.error is not None:
        out(paint(f"     {type(statement.error).__name__}: {phrase.flat(str(statement.error))}", "red"))
    elif statement.columns is None:
        out(paint(f"     {count(statement.count, 'row')} changed", "dim"))
    else:
        _table(statement.columns, statement.rows, most, indent="     ")
    for change in statement.changes:
        out(paint(f"     {phrase.shorten_middle(phrase.flat(phrase.change(change)), width() - 5)}", "cyan"))


def _table(columns: Sequence[str], rows: Sequence[tuple[Any, ...]], most: int, indent: str = "") -> None:
    if not rows:
        out(f"{indent}no rows" + (f" ({', '.join(columns)})" if columns else ""))
        return
    shown = rows[:most]
    numbers = [i for i in range(len(columns)) if all(isinstance(row[i], int | float | None) for row in shown)]
    table(columns, [[_cell(value) for value in row] for row in shown], right=numbers, indent=indent)
    if len(rows) > most:
        out(f"{indent}and {len(rows) - most:,} more rows")


def _cell(value: Any) -> Cell:
    if value is None:
        return Cell("null", "dim")
    return Cell(phrase.flat(value) if isinstance(value, str) else phrase.cell(value))


def writer_cells(written: Written, key_columns: KeyColumns) -> list[Cell | str]:
    """Who wrote a row, as the columns of a table."""
    record = written.writer
    if record is None or written.itself:
        return ["", "", Cell("this transaction itself" if written.itself else "older than the trace", "dim"), ""]
    changes = [change for change in record.changes if row_after(change, key_columns) == written.row]
    return [str(record.version), record.run, record.function, Cell(phrase.flat(phrase.most_telling(changes) or ""), "cyan")]


def row_name(row: Row) -> str:
    """A row, as it is named: `inventory[1]`."""
    name, key = row
    return f"{name}[{', '.join(phrase.cell(part) for part in key)}]"
