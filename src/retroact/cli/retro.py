"""`retroact retro`: the past once more, with changed code. What would have been?

This module must not know how the schedule is kept.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from retroact.cli import explore, opening, project, selection
from retroact.cli.failure import NO, BadRequest
from retroact.cli.output import Cell, Progress, note, out, paint, print_json, table
from retroact.cli.picture import draw
from retroact.cli.replay import within_history
from retroact.cli.seeded import begin_anew, the_other_seed
from retroact.cli.shown import count
from retroact.cli.values import change_value, outcome_value, parsed, row_value
from retroact.diagram import phrase
from retroact.diagram.moments import event_moments, recorded_moments
from retroact.function.kind import Kind
from retroact.function.registry import Registry
from retroact.replay.replayer import chosen_records
from retroact.replay.shelf import Shelf
from retroact.retroaction.difference import Difference, Effort, Event, RowDifference, RunDifference
from retroact.retroaction.invariant import Violation
from retroact.retroaction.retroactor import Retroactor
from retroact.trace.record import Outcome, Record, Run

#: Rows and calls shown; --json has them all.
_MOST = 40


def options(parser: argparse.ArgumentParser) -> None:
    """The options of `retro`."""
    selection.options(parser)
    parser.add_argument("--with", dest="changed", metavar="PATH", help="the changed code: a .py file or a package folder")
    parser.add_argument(
        "--answer", metavar="STEP=JSON", action="append", default=[], help="the result of a step that the record has none for"
    )
    parser.add_argument("--full", action="store_true", help="run every transaction, also those that cannot differ: slower, the same answer")
    explore.options(parser)
    parser.add_argument("--timeline", action="store_true", help="draw how the transactions interleaved, then and now")
    project.options(parser)
    parser.epilog = f"{parser.epilog}\nExit code 1: an invariant breaks, or a run could not be decided.\n{explore.EPILOG}"


def call(args: argparse.Namespace) -> int:
    """Run changed code over the past and print the difference; or explore schedules."""
    if explore.wanted(args):
        return explore.call(args)
    if args.changed is None:
        raise BadRequest(problem="missing: --with", remedy="Name the changed code: --with PATH; or look at other schedules: --explore")
    answers = dict(_answer(text) for text in args.answer)
    path = project.past(args)
    changed = Registry.of(opening.functions_in(project.existing_code(Path(args.changed))))
    with opening.history_of(path) as history, Progress("running the past", "transactions") as progress:
        runs = within_history(history, selection.chosen(history.trace, args, opening.now_us), args)
        if not selection.named(args):
            runs = _told_by(changed, runs, args)
        seed = the_other_seed(history, runs)
        if seed is not None and args.alone and (code := begin_anew(seed)) is not None:
            return code
        shelf = Shelf(history.trace)
        try:
            with opening.silenced():
                difference = Retroactor(history, shelf, changed, answers, full=args.full).run([run.run for run in runs], progress)
        finally:
            shelf.close()
        records = chosen_records(history, [run.run for run in runs]) if args.timeline and not args.json else []
    if args.json:
        print_json(_value(difference))
    else:
        _draw(records, difference)
        _show(difference)
    return 0 if difference.clean else NO


def _answer(text: str) -> tuple[str, Any]:
    name, _, value = text.partition("=")
    try:
        return name.strip(), json.loads(value)
    except ValueError:
        problem = f"--answer {text!r} is not STEP=JSON"
        raise BadRequest(problem=problem, remedy="""Name a step and its result: --answer 'charge="paid"'""") from None


def _told_by(changed: Registry, runs: Sequence[Run], args: argparse.Namespace) -> list[Run]:
    """Of a selection, the runs that changed code can be run for; the others stay as they were."""
    known = [run for run in runs if run.function in changed and run.kind != Kind.STEP.value and run.outcome is not None]
    left = [run for run in runs if run not in known and run.function not in changed]
    if left:
        names = ", ".join(dict.fromkeys(run.function for run in left))
        note(f"{count(len(left), 'run')} kept as recorded: the changed code has no {names}")
    if not known:
        raise selection.nothing(args)
    return known


# --- for people -------------------------------------------------------------------------------------------------------------


def _draw(records: Sequence[Record], difference: Difference) -> None:
    if records:
        draw(recorded_moments(records, {v.version: v.invariant for v in difference.violations_before}), "Then")
        chosen = {record.run for record in records} | {run.run for run in difference.runs}
        draw(event_moments(e for e in difference.events if e.run in chosen), "Now")


def _show(difference: Difference) -> None:
    _show_runs(list(difference.runs.telling()), len(difference.runs))
    place = {run: number for number, run in enumerate(dict.fromkeys(difference.events.runs()))}
    _show_calls(sorted((event for event in difference.events.telling() if event.new or event.removed), key=lambda event: place[event.run]))
    _show_rows(difference.rows)
    _show_invariants(difference)
    verdict = paint("clean", "green") if difference.clean else paint("not clean", "red")
    out(f"{verdict}: {count(len(difference.runs), 'run')} in {difference.seconds:.2f} s{_effort(difference.effort)}")


def _show_runs(runs: Sequence[RunDifference], of: int) -> None:
    differing = [run for run in runs if _differs(run) or run.undecided]
    rows = [
        [
            Cell(run.run, "bold"),
            run.function,
            _outcome(run.then),
            "->",
            Cell(f"undecided: {run.undecided}", "yellow") if run.undecided else _outcome(run.now),
        ]
        for run in differing
    ]
    _title("Outcomes")
    if rows:
        table(["run", "function", "then", "", "now"], rows, indent="  ")
    same = of - len(differing)
    if same:
        out(f"  {count(same, 'run')} as {'it was' if same == 1 else 'they were'}")
    out()


def _differs(run: RunDifference) -> bool:
    """Whether its outcome reads otherwise. The module of an exception does not count: changed code lies in another file."""
    return run.differs and (phrase.outcome(run.then), _committed(run.then)) != (phrase.outcome(run.now), _committed(run.now))


def _committed(outcome: Outcome | None) -> bool | None:
    return None if outcome is None else outcome.committed


def _show_calls(events: Sequence[Event]) -> None:
    if not events:
        return
    _title("Calls")
    rows = [
        [
            Cell("+", "green") if event.new else Cell("-", "red"),
            Cell(event.run, "bold"),
            phrase.call(event.function, event.arguments),
            _outcome(event.outcome) if event.outcome is not None else Cell("no longer called", "dim"),
        ]
        for event in events[:_MOST]
    ]
    table(["", "run", "call", "outcome"], rows, give=2, indent="  ")
    _more(len(events))


def _show_rows(rows: Sequence[RowDifference]) -> None:
    if not rows:
        return
    _title("Rows in the end")
    for row in rows[:_MOST]:
        out(f"  {row.table}[{phrase.shorten_middle(row.key, 30)}]  {phrase.shorten_middle(_row(row), 90)}")
    _more(len(rows))


def _row(of: RowDifference) -> str:
    if of.then is None or of.now is None:
        row, word = (of.now, "would be there") if of.then is None else (of.then, "would not be there")
        return f"{word}: {', '.join(f'{column} {phrase.cell(value)}' for column, value in (row or {}).items())}"
    then = of.then
    return ", ".join(
        f"{column} {phrase.cell(then.get(column))} -> {phrase.cell(value)}" for column, value in of.now.items() if then.get(column) != value
    )


def _show_invariants(difference: Difference) -> None:
    _title("Invariants")
    if not difference.invariants:
        out("  none is declared")
    for name in difference.invariants:
        before = [v for v in difference.violations_before if v.invariant == name]
        after = [v for v in difference.violations_after if v.invariant == name]
        out(f"  {paint(name, 'bold')}")
        out(f"    then  {_violations(before)}")
        out(f"    now   {_violations(after)}")
    out()


def _violations(found: Sequence[Violation]) -> str:
    if not found:
        return paint("held", "green")
    first = found[0]
    detail = f" ({first.detail})" if first.detail else ""
    more = f", and {count(len(found) - 1, 'time')} more" if len(found) > 1 else ""
    return paint(f"✗ broken by {first.function} of run {first.run} at version {first.version}{detail}{more}", "red")


def _effort(effort: Effort) -> str:
    """What was done to come to the answer."""
    parts = [
        f"{effort.executed:,} executed",
        f"{effort.checked:,} found the same" if effort.checked else "",
        f"{effort.untouched:,} untouched" if effort.untouched else "",
    ]
    total = effort.executed + effort.checked + effort.untouched
    return f"; {count(total, 'transaction')}: {', '.join(part for part in parts if part)}"


def _title(text: str) -> None:
    out(paint(text, "bold"))


def _more(total: int) -> None:
    if total > _MOST:
        out(paint(f"  … and {total - _MOST:,} more (--json has them all)", "dim"))
    out()


def _outcome(of: Outcome | None) -> Cell:
    if of is None:
        return Cell("no outcome", "yellow")
    return Cell(phrase.shorten_middle(phrase.outcome(of), 60), "" if of.committed else "red")


# --- for programs -----------------------------------------------------------------------------------------------------------


def _value(difference: Difference) -> dict[str, Any]:
    return {
        "clean": difference.clean,
        "runs": [
            {
                "run": run.run,
                "function": run.function,
                "arguments": parsed(run.arguments),
                "then": outcome_value(run.then),
                "now": outcome_value(run.now),
                "differs": _differs(run),
                "undecided": run.undecided,
            }
            for run in difference.runs
        ],
        "calls": [_event_value(event) for event in difference.events],
        "rows": [{"table": row.table, "key": row.key, "then": row_value(row.then), "now": row_value(row.now)} for row in difference.rows],
        "invariants": list(difference.invariants),
        "violations_before": [_violation_value(v) for v in difference.violations_before],
        "violations_after": [_violation_value(v) for v in difference.violations_after],
        "effort": dataclasses.asdict(difference.effort),
        "seconds": difference.seconds,
    }


def _event_value(event: Event) -> dict[str, Any]:
    return {
        "run": event.run,
        "function": event.function,
        "arguments": parsed(event.arguments),
        "version": event.version,
        "new": event.new,
        "removed": event.removed,
        "differs": event.differs,
        "then": None if event.record is None else outcome_value(event.record.outcome),
        "now": None if event.outcome is None else outcome_value(event.outcome),
        "changes": [change_value(change) for change in event.changes],
        "broke": list(event.broke),
    }


def _violation_value(of: Violation) -> dict[str, Any]:
    return {"invariant": of.invariant, "run": of.run, "function": of.function, "version": of.version, "detail": of.detail}
