"""`retroact runs`: what was run, newest first.

This module must not know how runs are kept.
"""

from __future__ import annotations

import argparse

from retroact.cli import opening, project, selection
from retroact.cli.failure import BadRequest
from retroact.cli.output import Cell, note, out, print_json, table
from retroact.cli.shown import began, ended, state, took
from retroact.cli.values import run_value
from retroact.trace.record import Run, RunState

_MOST = 50


def options(parser: argparse.ArgumentParser) -> None:
    """The options of `runs`."""
    parser.add_argument("--function", metavar="F", help="only runs of this function")
    parser.add_argument("--state", metavar="S", help=f"only runs that are {', '.join(RunState)}")
    selection.span(parser)
    parser.add_argument("--most", metavar="N", type=int, default=_MOST, help=f"at most so many (default {_MOST}; 0: all)")
    project.options(parser)


def call(args: argparse.Namespace) -> int:
    """List runs."""
    if args.state is not None and args.state not in list(RunState):
        raise BadRequest(problem=f"there is no state {args.state!r}", remedy=f"The states are {', '.join(RunState)}")
    since, until = selection.between(args, opening.now_us)
    filtered = args.function is not None or args.state is not None
    with opening.trace_of(project.present_database(args)) as trace:
        most = args.most if args.most > 0 else -1
        horizon = trace.horizon()
        found = trace.runs(since_us=since, until_us=until, most=-1 if filtered or most < 0 else most + 1)
    found = [run for run in found if args.function in (None, run.function) and args.state in (None, run.state.value)]
    shown = found if most < 0 else found[:most]
    if args.json:
        print_json([run_value(run) for run in shown])
        return 0
    if not shown:
        out("no runs" if filtered or args.since or args.until else "no runs yet: `retroact run FUNCTION` makes one")
        return 0
    _show(shown)
    if horizon.version and shown[-1].began_us <= horizon.began_us:
        note(f"Of runs before the horizon only the outcome is kept: it is version {horizon}.")
    if len(shown) < len(found):
        note(f"… and older ones: --most N or --since T shows more than {most}")
    return 0


def _show(runs: list[Run]) -> None:
    now = opening.now_us()
    rows = [[Cell(r.run, "bold"), r.function, state(r.state), began(r.began_us, now), took(r), ended(r)] for r in runs]
    table(["run", "function", "state", "began", "took", "outcome"], rows, right=(4,))
