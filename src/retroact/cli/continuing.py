"""`retroact cancel`, `resume` and `recover`: stopping runs, and going on with them.

This module must not know how a run goes on.
"""

from __future__ import annotations

import argparse

from retroact.cli import opening, project
from retroact.cli.failure import NO
from retroact.cli.output import Cell, note, out, print_json, table
from retroact.cli.running import tell, wait
from retroact.cli.shown import count, ended, state
from retroact.cli.values import run_value
from retroact.trace.record import RunId, RunState


def options_cancel(parser: argparse.ArgumentParser) -> None:
    """The options of `cancel`."""
    parser.add_argument("run", metavar="RUN", help="the id of the run")
    project.options(parser)
    parser.epilog = "Nothing is undone and nothing lost: `retroact resume RUN` goes on from the last recorded step."


def call_cancel(args: argparse.Namespace) -> int:
    """Stop a run at its next call."""
    path = project.present_database(args)
    with opening.app_on(path) as app:
        run = app.trace.run(RunId(args.run))
        if not run.state.terminal:
            app.cancel(run.run)
            run = app.trace.run(run.run)
    if args.json:
        print_json(run_value(run))
    elif run.state.terminal:
        note(f"retroact: run {run.run} is {run.state.value} already; there is nothing to cancel.")
    else:
        out(f"run {run.run} is cancelled; `retroact resume {run.run}` goes on with it")
    return NO if run.state.terminal else 0


def options_resume(parser: argparse.ArgumentParser) -> None:
    """The options of `resume`."""
    parser.add_argument("run", metavar="RUN", help="the id of the run")
    project.options(parser, code=True)


def call_resume(args: argparse.Namespace) -> int:
    """Go on with one run and wait for its result."""
    path = project.present_database(args)
    module = opening.functions_in(project.code(args))
    with opening.app_on(path, module, verify_rate=project.verify_rate(args)) as app:
        with opening.silenced():
            result = wait(app.resume(args.run))
        found = app.trace.find_run(result.run)
    return tell(found, result, as_json=args.json)


def options_recover(parser: argparse.ArgumentParser) -> None:
    """The options of `recover`."""
    project.options(parser, code=True)
    parser.epilog = "Exit code 1: a run is still without an outcome; its reason is told."


def call_recover(args: argparse.Namespace) -> int:
    """Go on with every interrupted run and tell what became of each."""
    path = project.present_database(args)
    module = opening.functions_in(project.code(args))
    with opening.app_on(path, module, verify_rate=project.verify_rate(args)) as app:
        before = [run for run in app.trace.open_runs() if run.parent is None and run.state is not RunState.CANCELLED]
        with opening.silenced():
            for handle in app.recover():
                wait(handle)
        after = [app.trace.run(run.run) for run in before]
    left = [run for run in after if not run.state.terminal]
    if args.json:
        print_json({"runs": [run_value(run) for run in after], "waiting": len(left)})
    elif not after:
        out("no run was interrupted")
    else:
        table(["run", "function", "state", "outcome"], [[Cell(r.run, "bold"), r.function, state(r.state), ended(r)] for r in after])
        out(f"\n{count(len(after) - len(left), 'run')} completed" + (f", {count(len(left), 'run')} still waiting" if left else ""))
    return NO if left else 0
