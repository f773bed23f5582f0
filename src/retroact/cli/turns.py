"""`retroact retro --schedule TURNS --debug`: pdb in the transactions of one schedule, on the state that each sees in it.

Only transactions are stopped in, since the bodies of workflows are rehearsed several times, each time from their beginning.

This module must not know how a schedule is performed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from types import FrameType
from typing import TYPE_CHECKING, Any

from retroact.cli.debugger import Prompt
from retroact.cli.failure import BadRequest
from retroact.cli.output import Cell, note, out, paint, table, width
from retroact.cli.sights import Glance, row_name, rule, writer_cells
from retroact.diagram import phrase
from retroact.engine.contract import Invocation, Watched
from retroact.function.kind import Kind
from retroact.function.registry import Registry
from retroact.provenance.transaction import Written, readings
from retroact.provenance.writers import KeyColumns, Row, last_writers, row_after
from retroact.replay.places import Places, of_project
from retroact.retroaction.exploration import Options
from retroact.retroaction.performance import Done, Performance, Turn
from retroact.trace.record import Change, Outcome, Run, RunId

if TYPE_CHECKING:
    from retroact.engine.contract import History
    from retroact.replay.shelf import Shelf
    from retroact.retroaction.exploration import Play
    from retroact.retroaction.explorer import Explorer

#: Bodies of these kinds are not stopped in.
_PASSED = (Kind.STEP, Kind.INVARIANT, Kind.WORKFLOW)
_HELP = """
Of this debugger (`help COMMAND` says more):
  sql SELECT ...     ask the state that the transaction sees in this schedule, its own writes included
  statement          go on to the next SQL statement, and stop before it
  statements         the statements so far, with their results
  back               back by one statement
  back transaction   back to the first line of the transaction before: the schedule is performed again up to there
  who                who wrote the rows that it has read: a turn of this schedule, or a run before it
  trace              the turns of the schedule so far

Only transactions are stopped in: a workflow's body is run several times, each time from its beginning.
`conn` may be asked at the prompt, too: conn.rows("select ...") is then none of the transaction's statements.
Of pdb, and as ever: n(ext), s(tep), r(eturn), c(ontinue), b(reak), l(ist), ll, w(here), u(p), d(own), p, pp, q(uit).
"""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What was asked for."""

    schedule: str
    options: Options
    breaks: Sequence[str]
    changed: Registry | None


def perform(history: History, shelf: Shelf, explorer: Explorer, runs: Sequence[Run], asked: Asked) -> Play | None:
    """Perform a schedule with somebody at the prompt; None when it was left before its end."""
    debugger = TurnDebugger(places(shelf, runs, asked.breaks, asked.changed))
    performance = Performance(history.trace, explorer, [RunId(run.run) for run in runs], asked.schedule, asked.options, debugger)
    out(f"{paint(f'schedule {asked.schedule}', 'bold')} of {', '.join(run.run for run in runs)}. Nothing here changes the database.")
    out(paint("It stops in transactions only. `help` tells what can be asked; `c` goes on to the next one, `q` leaves.", "dim"))
    play = debugger.run_performance(performance)
    out()
    if play is None:
        note(f"left in turn {performance.place + 1}: what the schedule comes to is not known. Without --debug it is performed to its end")
    return play


def places(shelf: Shelf, runs: Sequence[Run], names: Sequence[str], changed: Registry | None) -> Places:
    """Where to stop. Raises BadRequest for functions that are not there, or not stopped in."""
    found = Places(shelf, runs, names, changed=changed, passed=_PASSED)
    others = ", ".join(sorted(found.known)) or "none"
    if found.answered:
        problem = f"{', '.join(sorted(found.answered))} is no transaction, and a schedule is stopped in its transactions only"
        raise BadRequest(problem=problem, remedy=f"There are: {others}")
    if found.missing:
        raise BadRequest(
            problem=f"there is no function {', '.join(found.missing)} in the code of these runs", remedy=f"There are: {others}"
        )
    return found


class TurnDebugger(Prompt[Performance, "TurnSights"]):
    """Guides a performance from a prompt."""

    _ours = _HELP

    def run_performance(self, performance: Performance) -> Play | None:
        """Perform a schedule; returns what it came to, None when it was left before."""
        self.session = performance
        self._sights = TurnSights(performance)
        return self._serve(performance.play)

    # --- what the performance tells ------------------------------------------------------------------------------------------

    def turn(self, turn: Turn) -> None:
        """A transaction begins, or begins again."""
        self._begin(turn.until)
        self._sights.turn(turn)

    def done(self, done: Done) -> None:
        """A transaction has ended."""
        self._end()
        self._sights.done(done)

    def dispatch_line(self, frame: FrameType) -> Any:
        """Ctrl-C in a workflow, which is not stopped in, leaves."""
        if self._interrupted and not self.session.executing and of_project(frame):
            self._interrupted = False
            raise self.session.leave()
        return super().dispatch_line(frame)

    # --- commands ------------------------------------------------------------------------------------------------------------

    def do_who(self, _arg: str) -> None:
        """who

        Who wrote the rows that the transaction has read so far: the turn of this schedule that last changed each of
        them, or else the version from before the schedule begins.
        """
        self._sights.who(self._made)

    def do_change(self, arg: str) -> None:  # noqa: ARG002 - what pdb passes
        """change

        Not here: what a schedule comes to is what the code does. Change the code, and name it: --with PATH.
        """
        self.error("a schedule is performed as the code does it. To see what other code would do, leave, and add --with PATH")


class TurnSights(Glance):
    """Prints what there is to see of a performance."""

    def __init__(self, performance: Performance) -> None:
        super().__init__()
        self._performance = performance
        self._turn: Turn

    def turn(self, turn: Turn) -> None:
        """A transaction is under way."""
        self._turn = turn
        self._head = lambda: self._show(turn)

    def done(self, done: Done) -> None:
        """What came of a transaction."""
        if done.broke:
            self.stopped()
        if self._head is not None:
            return
        outcome = done.event.answer.outcome
        word = "committed" if outcome.committed else "aborted"
        out(f"   {done.event.call.function.name}: {word} {phrase.shorten_middle(phrase.outcome(outcome), 60)}")
        if done.broke:
            out(paint(f"   ✗ {', '.join(done.broke)} does not hold from here on", "red"))

    def trace(self) -> None:
        """The turns so far."""
        rows: list[list[Cell | str]] = []
        for number, done in enumerate(self._performance.done, start=1):
            call, outcome = done.event.call, done.event.answer.outcome
            rows.append(
                [
                    "",
                    str(number),
                    *_named(call),
                    _came(outcome, done.event.changes),
                    Cell("✗ " * bool(done.broke) + ", ".join(done.broke), "red"),
                ]
            )
        here = self._turn.call
        rows.append([Cell("->", "bold"), str(self._performance.place + 1), *_named(here), Cell("here", "bold"), ""])
        table(["", "turn", "run", "step", "call", "", ""], rows, right=(1, 3), give=4)

    def who(self, made: Sequence[Watched]) -> None:
        """Who wrote the rows that were read."""
        performance = self._performance
        key_columns = performance.state().key_columns
        read = readings(made, key_columns)
        turns = {row: cells for row, itself in read if not itself and (cells := self._turn_that_wrote(row, key_columns))}
        older = [row for row, itself in read if not itself and row not in turns]
        records = last_writers(performance.trace, older, performance.version, key_columns)
        shown: list[list[Cell | str]] = []
        for (row, itself), numbers in read.items():
            if not itself and row in turns:
                shown.append([row_name(row), *turns[row]])
                continue
            writer = None if itself else records[row]
            cells = writer_cells(Written(row=row, statements=tuple(numbers), writer=writer, itself=itself), key_columns)
            shown.append([row_name(row), f"version {writer.version}" if writer else "", *cells[1:]])
        self.writers(made, shown, "when")

    def _turn_that_wrote(self, row: Row, key_columns: KeyColumns) -> list[Cell | str]:
        """The last turn that wrote a row, as the columns of a table; nothing when none did."""
        for number, done in reversed(list(enumerate(self._performance.done, start=1))):
            changes = [c for c in done.event.changes if row_after(c, key_columns) == row]
            if changes:
                return [f"turn {number}", done.event.call.run, done.event.call.function.name, _telling(changes)]
        return []

    # --- how -----------------------------------------------------------------------------------------------------------------

    def _show(self, turn: Turn) -> None:
        out()
        call = turn.call
        if turn.until > 1:
            rule(f"back in turn {turn.place + 1}, before its statement {turn.until}")
            return
        run, step, called = _named(call)
        rule(f"turn {turn.place + 1} of schedule {self._performance.schedule}", f"run {run}{f', step {step}' if step else ''}")
        out(f"   {paint(phrase.shorten_middle(called, width() - 3), 'bold')}")
        done = self._performance.done
        if not done:
            out(paint(f"   it sees the state of version {self._performance.version}, in which all runs begin", "dim"))
            return
        own = max((place for place, each in enumerate(done) if each.event.call.run == call.run), default=-1)
        others = [(number, each) for number, each in enumerate(done[own + 1 :], start=own + 2) if each.event.changes]
        since = (
            f"since turn {own + 1}, the last of its run"
            if own >= 0
            else f"since version {self._performance.version}, in which all runs begin"
        )
        if not others:
            out(paint(f"   nothing was changed {since}", "dim"))
            return
        out(paint(f"   {since}, others have done:", "dim"))
        rows = [[f"turn {n}", e.event.call.run, e.event.call.function.name, _telling(e.event.changes)] for n, e in others]
        table(["", "", "", ""], rows, indent="      ")


def _named(call: Invocation) -> tuple[str, str, str]:
    """The run, the step and the call, as they are shown."""
    return call.run, str(int(call.step) or ""), phrase.call(call.function.name, call.arguments.decode())


def _came(outcome: Outcome, changes: Sequence[Change]) -> Cell | str:
    if not outcome.committed:
        return Cell(phrase.shorten_middle(phrase.outcome(outcome), 40), "red")
    return _telling(changes) if changes else phrase.shorten_middle(phrase.outcome(outcome), 40)


def _telling(changes: Sequence[Change]) -> Cell:
    return Cell(phrase.flat(phrase.most_telling(changes) or ""), "cyan")
