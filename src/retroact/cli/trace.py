"""`retroact trace RUN`: what one run did, step by step, with the runs that it called.

This module must not know how records are kept.
"""

from __future__ import annotations

import argparse
import dataclasses
from typing import TYPE_CHECKING, Any

from retroact.cli import opening, project
from retroact.cli.output import out, paint, print_json, width
from retroact.cli.shown import STATE, count, span
from retroact.cli.times import duration
from retroact.cli.values import record_value, run_value
from retroact.diagram import phrase
from retroact.trace.record import Record, Run, RunId, Statement

if TYPE_CHECKING:
    from retroact.workflow.executor import Trace

_INDENT = "    "
_LONGEST_CALL = 64
_LONGEST_OUTCOME = 60


def options(parser: argparse.ArgumentParser) -> None:
    """The options of `trace`."""
    parser.add_argument("run", metavar="RUN", help="the id of the run")
    parser.add_argument("--statements", action="store_true", help="show each SQL statement with its parameters")
    parser.add_argument(
        "--step",
        type=int,
        metavar="N",
        help="look at one transaction: statements with results, rows before and after, who wrote what it read, who read what it wrote "
        "(0: a transaction that was run alone)",
    )
    project.options(parser)
    parser.epilog = "Examples: retroact trace order-7 --statements\n          retroact trace order-7 --step 2"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Told:
    """A run with its records, and the runs that it called, by the step that called them."""

    run: Run
    records: list[Record]
    children: dict[int, _Told]


def call(args: argparse.Namespace) -> int:
    """Show one run, or one transaction of it."""
    if args.step is not None:
        from retroact.cli import looking

        return looking.call(project.past(args), args.run, args.step, as_json=args.json)
    with opening.trace_of(project.present_database(args)) as trace:
        told = _read(trace, trace.run(RunId(args.run)))
        horizon = trace.horizon()
    dropped = sum(record.version <= horizon.version for _, record in _flat(told))
    if args.json:
        print_json(_value(told) | {"horizon": horizon.version, "dropped": dropped})
        return 0
    _head(told.run)
    if dropped:
        what = "its arguments, statements and row changes" if dropped == len(_flat(told)) else f"the details of {count(dropped, 'step')}"
        out(f"{paint('dropped    ', 'dim')} {what}: the kept past begins at version {horizon}")
    sizes = _sizes(told)
    if sizes is None:
        out("\nno step is recorded yet")
        return 0
    out(
        "\n"
        + paint(f"{'version':>{sizes.version}}  {'step':>{sizes.step}}  {'call':<{sizes.call}}  {'took':>{sizes.took}}  outcome", "dim")
    )
    _steps(told, sizes, "", statements=args.statements)
    return 0


def _read(trace: Trace, run: Run) -> _Told:
    records = trace.records_of(run.run)
    children: dict[int, _Told] = {}
    for record in records:
        child = trace.find_run(RunId(f"{run.run}.{record.step}")) if record.kind == "workflow" else None
        if child is not None:
            children[record.step] = _read(trace, child)
    return _Told(run=run, records=records, children=children)


def _value(told: _Told) -> dict[str, Any]:
    steps: list[dict[str, Any]] = []
    for record in told.records:
        child = told.children.get(record.step)
        steps.append(record_value(record) | ({"child": _value(child)} if child else {}))
    return run_value(told.run) | {"first": told.run.first, "last": told.run.last, "steps": steps}


def _head(run: Run) -> None:
    lines = [
        ("run", paint(run.run, "bold")),
        (run.kind, phrase.shorten_middle(phrase.call(run.function, run.arguments), width() - 12)),
        (
            "state",
            paint(run.state.value, STATE[run.state])
            + (f"  {phrase.shorten_middle(phrase.outcome(run.outcome), 80)}" if run.outcome else ""),
        ),
        ("when", span(run)),
    ]
    if run.reason:
        lines.append(("reason", run.reason))
    if run.parent:
        lines.append(("called by", f"run {run.parent}, step {run.parent_step}"))
    lines.append(("code", run.code or "not at hand"))
    for name, text in lines:
        out(f"{paint(f'{name:<11}', 'dim')} {text}")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Sizes:
    """How wide the columns are."""

    version: int
    step: int
    call: int
    took: int


def _flat(told: _Told, depth: int = 0) -> list[tuple[int, Record]]:
    found: list[tuple[int, Record]] = []
    for record in told.records:
        found.append((depth, record))
        if record.step in told.children:
            found += _flat(told.children[record.step], depth + 1)
    return found


def _sizes(told: _Told) -> _Sizes | None:
    records = _flat(told)
    if not records:
        return None
    longest = max(len(_INDENT) * depth + len(_call(record)) for depth, record in records)
    return _Sizes(
        version=max(7, *(len(str(record.version)) for _, record in records)),
        step=max(4, *(len(str(record.step)) for _, record in records)),
        call=min(longest, _LONGEST_CALL, max(width() - 45, 24)),
        took=max(len(duration(record.elapsed_us)) for _, record in records),
    )


def _call(record: Record) -> str:
    if record.function == "retroact.sleep":
        return f"sleep {duration(record.elapsed_us)}"
    tried = f"  (attempt {record.attempt})" if record.attempt > 1 else ""
    return phrase.call(record.function, record.arguments) + tried


def _steps(told: _Told, sizes: _Sizes, indent: str, *, statements: bool) -> None:
    for record in told.records:
        _step(record, sizes, indent, statements=statements)
        child = told.children.get(record.step)
        if child is not None:
            _steps(child, sizes, indent + _INDENT, statements=statements)


def _step(record: Record, sizes: _Sizes, indent: str, *, statements: bool) -> None:
    called = indent + phrase.shorten_middle(_call(record), sizes.call - len(indent))
    result = phrase.shorten_middle(phrase.outcome(record.outcome), _LONGEST_OUTCOME)
    result = result if record.outcome.committed else paint(f"✗ {result}", "red")
    out(
        f"{record.version:>{sizes.version}}  {record.step:>{sizes.step}}  {called:<{sizes.call}}  "
        f"{paint(f'{duration(record.elapsed_us):>{sizes.took}}', 'dim')}  {result}"
    )
    margin = " " * (sizes.version + sizes.step + 4) + indent + "  "
    room = max(width() - len(margin), 40)
    if statements:
        for number, statement in enumerate(record.statements, start=1):
            _statement(number, statement, margin, room)
    for change in record.changes:
        out(margin + paint(phrase.shorten_middle(phrase.flat(phrase.change(change)), room), "cyan"))


def _statement(number: int, statement: Statement, margin: str, room: int) -> None:
    given = ", ".join(f":{name} = {phrase.cell(value)}" for name, value in statement.parameters.items())
    rows = count(statement.count, "row") if statement.unordered is not None else f"{count(statement.count, 'row')} changed"
    out(f"{margin}{paint(f'{number}', 'dim')}  {phrase.shorten_middle(' '.join(statement.sql.split()), room - 4)}")
    out(f"{margin}   {paint(phrase.shorten_middle(phrase.flat(given) + ('  ' if given else '') + '-> ' + rows, room - 4), 'dim')}")
