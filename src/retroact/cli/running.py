"""`retroact run`: one function to completion; its result is printed as JSON, its run id always told.

This module must not know how a function is run.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from typing import TYPE_CHECKING, Any, cast

from retroact.cli import opening, project
from retroact.cli.failure import EXIT, NO, BadRequest, report
from retroact.cli.output import Progress, note, out, print_json
from retroact.cli.shown import interrupted
from retroact.cli.values import run_value
from retroact.errors import Blame, RetroactError, RunCancelled, RunFailed
from retroact.trace.record import Run, RunId, RunState

if TYPE_CHECKING:
    from retroact.app import Handle

#: How often a waiter looks whether it has something to say (seconds).
_LOOK_SECONDS = 0.25
#: Names that the App keeps for itself: a parameter of that name is given by position.
_TAKEN = {"self", "function", "run"}


def options(parser: argparse.ArgumentParser) -> None:
    """The options of `run`."""
    parser.add_argument("function", metavar="FUNCTION", help="a transaction, a step or a workflow")
    parser.add_argument(
        "arguments",
        metavar="JSON",
        nargs="?",
        default="{}",
        help="its arguments: an object by name, an array by position, or - to read them from standard input",
    )
    parser.add_argument("--run", metavar="ID", help="the id of the run: the same id again does not run it again, it gives the same result")
    parser.add_argument(
        "--verify-rate",
        metavar="SHARE",
        type=float,
        help="execute this share of runs a second time, on a branch, and warn if a function is not deterministic (0.01: one in a hundred)",
    )
    project.options(parser, code=True)
    parser.epilog = 'Example: retroact run checkout \'{"item": "apple", "quantity": 2}\''


def call(args: argparse.Namespace) -> int:
    """Run a function."""
    by_position, by_name = _arguments(args.arguments)
    module = opening.functions_in(project.code(args))
    with opening.app_on(project.database(args), module, verify_rate=project.verify_rate(args)) as app:
        from retroact.app import new_run_id
        from retroact.engine.clock import SystemClock

        run = RunId(args.run or new_run_id(SystemClock()))
        with opening.silenced():
            handle = app.start(args.function, *by_position, run=run, **by_name)
            if not args.json:
                note(f"run {run}")
            ended = wait(handle)
        found, waiting = app.trace.find_run(run), app.trace.open_runs()
    code = tell(found, ended, as_json=args.json)
    if not args.json:
        interrupted([other for other in waiting if other.run != run])
    return code


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """A run that was waited for: its result, or what it raised."""

    run: RunId
    value: Any = None
    error: Exception | None = None


def wait(handle: Handle[Any]) -> Ended:
    """Wait for a run, with a sign of life for who watches."""
    with Progress(f"run {handle.run}") as progress:
        while not handle.done():
            try:
                handle.result(_LOOK_SECONDS)
            except Exception:  # noqa: BLE001 - it is asked for again below
                progress.tick()
    try:
        return Ended(run=handle.run, value=handle.result())
    except Exception as error:  # noqa: BLE001 - what a run raises is its outcome, and the answer here
        return Ended(run=handle.run, error=error)


def tell(found: Run | None, ended: Ended, *, as_json: bool) -> int:
    """Print what came of a run, `found` in the trace (a reader's record may be on its way). The exit code."""
    if ended.error is not None:
        return _failed(found, ended.run, ended.error, as_json=as_json)
    if not as_json:
        out(json.dumps(_plain(ended.value), ensure_ascii=False))
    elif found is not None:
        print_json(run_value(found))
    else:
        print_json({"run": ended.run, "state": RunState.COMMITTED.value, "value": _plain(ended.value)})
    return 0


def _failed(found: Run | None, run: RunId, error: Exception, *, as_json: bool) -> int:
    if isinstance(error, RunCancelled):
        return report(error, as_json=as_json, run=run, exit_code=NO)
    if isinstance(error, RetroactError) and not isinstance(error, RunFailed):
        # A wrong call inside of a run that was begun is the fault of the code that made it.
        inside = error.blame is Blame.CALLER and _recorded(found, error)
        return report(error, as_json=as_json, run=run, exit_code=EXIT[Blame.CODE] if inside else None)
    if as_json:
        what = {"error": type(error).__name__, "message": str(error), "definite": True, "blame": Blame.CODE.value}
        print_json({**what, **(run_value(found) if found else {"run": run})})
    else:
        name = found.function if found else "the run"
        note(f"retroact: {name} aborted: {_described(error)}. `retroact trace {run}` shows what it did.")
    return NO


def _recorded(found: Run | None, error: Exception) -> bool:
    """Whether the run ended with this error, rather than being refused with it."""
    failure = found.outcome.failure if found is not None and found.outcome is not None else None
    return failure is not None and failure.error.rpartition(".")[2] == type(error).__name__


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
        raise BadRequest(
            problem=f"{', '.join(_TAKEN & named.keys())} cannot be given by name here", remedy="Give the arguments as an array, by position"
        )
    return [], named
