"""`retroact run`: one function to completion; its result is printed as JSON, its run id always told.

This module must not know how a function is run.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import json
import sys
from typing import TYPE_CHECKING, Any, cast

from retroact.cli import opening, project
from retroact.cli.failure import NO, BadRequest, report
from retroact.cli.output import Progress, note, out, print_json
from retroact.cli.shown import interrupted
from retroact.cli.values import run_value
from retroact.errors import Blame, RetroactError, RunCancelled, RunFailed
from retroact.trace.record import RunId, RunState

if TYPE_CHECKING:
    from retroact.app import App, Handle

#: How often a waiter looks whether it has something to say (seconds).
_LOOK_SECONDS = 0.25
#: Names that the App keeps for itself: a parameter of that name is given by position.
_TAKEN = {"self", "function", "run"}


def options(parser: argparse.ArgumentParser) -> None:
    """The options of `run`."""
    parser.add_argument("function", metavar="FUNCTION", help="a transaction, a step or a workflow")
    parser.add_argument("arguments", metavar="JSON", nargs="?", default="{}", help="its arguments: an object by name, an array by position, or - to read them from standard input")
    parser.add_argument("--run", metavar="ID", help="the id of the run: the same id again does not run it again, it gives the same result")
    project.options(parser, code=True)
    parser.epilog = 'Example: retroact run checkout \'{"item": "apple", "quantity": 2}\''


def call(args: argparse.Namespace) -> int:
    """Run a function."""
    by_position, by_name = _arguments(args.arguments)
    module = opening.functions_in(project.code(args))
    with opening.app_on(project.database(args), module) as app:
        from retroact.app import new_run_id
        from retroact.engine.clock import SystemClock

        run = RunId(args.run or new_run_id(SystemClock()))
        handle = app.start(args.function, *by_position, run=run, **by_name)
        if not args.json:
            note(f"run {run}")
        code = finish(app, handle, as_json=args.json)
        interrupted(sum(r.state is RunState.RUNNING and r.parent is None and r.run != run for r in app.trace.open_runs()))
        return code


def finish(app: App, handle: Handle[Any], *, as_json: bool) -> int:
    """Wait for a run and print what came of it. The exit code."""
    output = sys.__stdout__ if sys.stdout is sys.stderr and sys.__stdout__ else sys.stdout
    del output
    try:
        value = wait(handle)
    except Exception as error:  # noqa: BLE001 - what a run raises is its outcome, and the answer here
        return _failed(app, handle, error, as_json=as_json)
    found = app.trace.find_run(RunId(handle.run))
    if as_json:
        opening.answer(lambda: print_json(run_value(found) if found else {"run": handle.run, "state": "committed", "value": _plain(value)}))
    else:
        opening.answer(lambda: out(json.dumps(_plain(value), ensure_ascii=False)))
    return 0


def wait(handle: Handle[Any]) -> Any:
    """The result of a run, with a sign of life for who watches. Raises what the run raised."""
    with Progress(f"run {handle.run}") as progress:
        while not handle.done():
            try:
                return handle.result(_LOOK_SECONDS)
            except (TimeoutError, concurrent.futures.TimeoutError):
                progress.tick()
    return handle.result()


def _failed(app: App, handle: Handle[Any], error: Exception, *, as_json: bool) -> int:
    found = app.trace.find_run(RunId(handle.run))
    recorded = found is not None and found.state is RunState.ABORTED
    platform = isinstance(error, RetroactError) and not isinstance(error, RunFailed | RunCancelled)
    if platform:
        # A wrong call inside of a run is the fault of the code that made it.
        code = 3 if recorded and error.blame is Blame.CALLER else None
        return opening.answer(lambda: report(error, as_json=as_json, run=handle.run, exit_code=code))
    if isinstance(error, RunCancelled):
        return opening.answer(lambda: report(error, as_json=as_json, run=handle.run, exit_code=NO))
    message = f"{found.function if found else 'it'} aborted: {_described(error)}. `retroact trace {handle.run}` shows what it did."
    if as_json:
        value = {"error": type(error).__name__, "message": str(error), "definite": True, "blame": "code", "run": handle.run}
        opening.answer(lambda: print_json({**value, **({"outcome": run_value(found)} if found else {})}))
    else:
        note(f"retroact: {message}")
    return NO


def _described(error: Exception) -> str:
    if isinstance(error, RunFailed):
        return f"{error.details['error']}: {error.details['message']}"
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _plain(value: Any) -> Any:
    from retroact.trace.codec import decode_json, encode_json

    return decode_json(encode_json(value))


def _arguments(text: str) -> tuple[list[Any], dict[str, Any]]:
    if text == "-":
        text = sys.stdin.read()
    remedy = """Give an object by name, '{"item": "apple"}', or an array by position, '["apple"]'"""
    try:
        given = json.loads(text)
    except ValueError as error:
        raise BadRequest(problem=f"the arguments are not JSON ({error})", remedy=remedy) from None
    if isinstance(given, list):
        return cast("list[Any]", given), {}
    if not isinstance(given, dict):
        raise BadRequest(problem=f"the arguments are {json.dumps(given)}, neither an object nor an array", remedy=remedy)
    named = cast("dict[str, Any]", given)
    if _TAKEN & named.keys():
        raise BadRequest(problem=f"{', '.join(_TAKEN & named.keys())} cannot be given by name here", remedy="Give the arguments as an array, by position")
    return [], named
