"""`retroact replay`: the past once more, with the code it ran with, and whether it did the same.

This module must not know how a transaction is executed again.
"""

from __future__ import annotations

import argparse
import collections
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from retroact.cli import debugging, opening, project, selection
from retroact.cli.failure import NO
from retroact.cli.output import Cell, Progress, note, out, paint, print_json, table, width
from retroact.cli.picture import draw
from retroact.cli.seeded import begin_anew, replay_by_seed, the_other_seed
from retroact.cli.shown import count, result
from retroact.cli.values import outcome_value, parsed
from retroact.diagram import phrase
from retroact.diagram.moments import recorded_moments
from retroact.replay.divergence import Verdict
from retroact.replay.replayer import Replayed, Report, WorkflowReplayed
from retroact.trace.record import Run

if TYPE_CHECKING:
    from retroact.engine.sqlite.history import History
    from retroact.engine.sqlite.portable.history import PortableHistory

_STYLE = {Verdict.IDENTICAL: "green", Verdict.ORDER_ONLY: "cyan", Verdict.RECORDED_RESULTS: "yellow", Verdict.DIVERGED: "red"}
#: More runs than this are only shown when they are not identical.
_MOST_RUNS = 30
#: Rates below are told with a decimal.
_FEW = 10


def options(parser: argparse.ArgumentParser) -> None:
    """The options of `replay`."""
    selection.options(parser)
    parser.add_argument("--timeline", action="store_true", help="draw how the transactions interleaved, one column for each run")
    parser.add_argument(
        "--each",
        action="store_true",
        help=f"show every transaction, of however many runs (otherwise, above {_MOST_RUNS}, only what is not identical)",
    )
    debugging.options(parser)
    project.options(parser)
    parser.epilog = (
        f"{parser.epilog}\nExit code 1: something diverged (of what was replayed, when a debugger was left before the end)."
        "\nExamples: retroact replay order-7\n          retroact replay order-7 --debug --break reserve"
    )


def call(args: argparse.Namespace) -> int:
    """Replay runs and report."""
    looked_into = debugging.asked(args)
    path = project.past(args)
    with opening.history_of(path) as history:
        runs = within_history(history, selection.chosen(history.trace, args, opening.now_us), args)
        if looked_into:
            seed = the_other_seed(history, runs)
            if seed is not None and args.alone and (code := begin_anew(seed)) is not None:
                return code
            report = debugging.replay(history, runs, args)
            out()
        else:
            with opening.silenced(), Progress("replaying", "transactions") as progress:
                report = replay_by_seed(history, runs, progress)
    if args.json:
        print_json(_value(runs, report))
    else:
        if args.timeline:
            diverged = {t.record.version: _where(t) for t in report.transactions if t.verdict is Verdict.DIVERGED}
            draw(recorded_moments([t.record for t in report.transactions], diverged))
        _show(runs, report, everything=args.each or len(runs) <= _MOST_RUNS)
        if report.transactions and not looked_into:
            _speed(report)
    return 0 if report.faithful else NO


def within_history(history: History | PortableHistory, runs: Sequence[Run], args: argparse.Namespace) -> list[Run]:
    """Of a selection, the runs that the page log still reaches. Raises BadRequest when none is left."""
    if selection.named(args):
        return list(runs)
    if runs and (horizon := opening.horizon(history)):
        gone = opening.runs_until(history, horizon)
        kept = [run for run in runs if run.run not in gone]
        if len(kept) < len(runs):
            note(f"{count(len(runs) - len(kept), 'run')} left out: the page log begins at version {horizon}")
        runs = kept
    if not runs:
        raise selection.nothing(args)
    return list(runs)


def _show(runs: Sequence[Run], report: Report, *, everything: bool) -> None:
    by_run: dict[str, list[Replayed]] = collections.defaultdict(list)
    for transaction in report.transactions:
        by_run[_root(transaction.record.run, runs)].append(transaction)
    workflows = {workflow.run.run: workflow for workflow in report.workflows}
    hidden = 0
    for run in runs:
        workflow = workflows.get(run.run)
        verdicts = [*(t.verdict for t in by_run[run.run]), *([workflow.verdict] if workflow else [])]
        if everything or any(verdict is not Verdict.IDENTICAL for verdict in verdicts):
            _show_run(run, by_run[run.run], workflow)
        else:
            hidden += 1
    if hidden:
        out(f"{paint('✓', 'green')} {count(hidden, 'run')} identical {paint('(--each shows them)', 'dim')}\n")
    _summary(report)


def _show_run(run: Run, transactions: Sequence[Replayed], workflow: WorkflowReplayed | None) -> None:
    verdicts = [*(t.verdict for t in transactions), *([workflow.verdict] if workflow else [])]
    bad = Verdict.DIVERGED in verdicts
    called = phrase.shorten_middle(phrase.call(run.function, run.arguments), max(width() - len(run.run) - 50, 30))
    out(f"{paint('✗', 'red') if bad else paint('✓', 'green')} {paint(run.run, 'bold')}  {called}  {result(run.outcome)}")
    rows = [
        [
            str(t.record.version),
            Cell(t.verdict.value, _STYLE[t.verdict]),
            phrase.call(t.record.function, t.record.arguments),
            Cell(phrase.shorten_middle(phrase.outcome(t.record.outcome), 40), "" if t.record.outcome.committed else "red"),
        ]
        for t in transactions
    ]
    if rows:
        table(["", "", "", ""], rows, right=(0,), give=2, indent="  ")
    for transaction in transactions:
        _explain(transaction)
    if workflow is not None and workflow.reason:
        word = "diverged" if workflow.verdict is Verdict.DIVERGED else workflow.verdict.value
        out(f"    {paint(f'the workflow {word}', _STYLE[workflow.verdict])}: {workflow.reason}")
    out()


def _explain(of: Replayed) -> None:
    if of.divergence is not None:
        for line in of.divergence.explain(of.record).splitlines():
            out(f"      {paint(line, 'red')}")
        if of.reason:
            out(f"      {of.reason}")
    elif of.reason:
        out(f"      version {of.record.version}: {of.reason}")


def _summary(report: Report) -> None:
    total = len(report.transactions)
    counts = {verdict: report.count(verdict) for verdict in Verdict}
    shown = ", ".join(paint(f"{number:,} {verdict.value}", _STYLE[verdict]) for verdict, number in counts.items() if number)
    out(f"{count(total, 'transaction')}: {shown or 'nothing to execute'}")
    if report.workflows:
        same = sum(w.verdict is Verdict.IDENTICAL for w in report.workflows)
        bad = sum(w.verdict is Verdict.DIVERGED for w in report.workflows)
        parts = [paint(f"{same:,} identical", "green") if same else "", paint(f"{bad:,} diverged", "red") if bad else ""]
        rest = len(report.workflows) - same - bad
        parts.append(paint(f"{rest:,} not run again", "yellow") if rest else "")
        answered = f"; {count(report.answered, 'other call')} answered from the record" if report.answered else ""
        out(f"{count(len(report.workflows), 'workflow')}: {', '.join(p for p in parts if p)}{answered}")


def _speed(report: Report) -> None:
    total = len(report.transactions)
    then = f", originally {_rate(total, report.original_seconds)}" if report.original_seconds else ""
    out(paint(f"in {report.seconds:.2f} s: {_rate(total, report.seconds)}{then}", "dim"))


def _rate(number: int, seconds: float) -> str:
    rate = number / max(seconds, 1e-6)
    return f"{rate:,.0f} a second" if rate > _FEW else f"{rate:.1f} a second"


def _root(run: str, runs: Sequence[Run]) -> str:
    """The chosen run that a run is, or was called by."""
    names = {r.run for r in runs}
    while run not in names and "." in run:
        run = run.rpartition(".")[0]
    return run


def _where(of: Replayed) -> str:
    divergence = of.divergence
    return f"diverged at statement {divergence.statement}" if divergence and divergence.statement else "diverged"


def _value(runs: Sequence[Run], report: Report) -> dict[str, Any]:
    return {
        "runs": [run.run for run in runs],
        "faithful": report.faithful,
        "verdicts": {verdict.value: report.count(verdict) for verdict in Verdict},
        "transactions": [
            {
                "version": t.record.version,
                "run": t.record.run,
                "step": t.record.step,
                "function": t.record.function,
                "arguments": parsed(t.record.arguments),
                **outcome_value(t.record.outcome),
                "verdict": t.verdict.value,
                "reason": t.reason,
                "divergence": None
                if t.divergence is None
                else {
                    "statement": t.divergence.statement,
                    "part": t.divergence.part,
                    "sql": t.divergence.sql,
                    "recorded": t.divergence.recorded,
                    "replayed": t.divergence.replayed,
                    "explanation": t.divergence.explain(t.record),
                },
            }
            for t in report.transactions
        ],
        "workflows": [
            {"run": w.run.run, "function": w.run.function, "verdict": w.verdict.value, "reason": w.reason} for w in report.workflows
        ],
        "answered": report.answered,
        "seconds": report.seconds,
        "original_seconds": report.original_seconds,
    }
