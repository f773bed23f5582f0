"""Which runs are meant: named one by one, all of them, or those that began in a span of time.

This module must not know what is done with them.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING

from retroact.cli.failure import BadRequest
from retroact.cli.times import FORMS, parse
from retroact.trace.record import Run, RunId

if TYPE_CHECKING:
    from retroact.engine.contract import Trace


def options(parser: argparse.ArgumentParser) -> None:
    """Add RUN..., --all, --since and --until."""
    parser.add_argument("run", nargs="*", metavar="RUN", help="a run, by its id (`retroact runs` lists them)")
    parser.add_argument("--all", action="store_true", help="every run")
    span(parser)


def span(parser: argparse.ArgumentParser) -> None:
    """Add --since and --until."""
    parser.add_argument("--since", metavar="T", help=f"runs that began at T or later; T is {FORMS}")
    parser.add_argument("--until", metavar="T", help="runs that began at T or earlier")
    parser.epilog = f"Times are local: {FORMS}."


def between(args: argparse.Namespace, now_us: Callable[[], int]) -> tuple[int, int]:
    """The span of time that was asked for. Raises BadRequest."""
    now = now_us()
    since = parse(args.since, now) if args.since else 0
    until = parse(args.until, now, end=True) if args.until else 2**62
    if since > until:
        raise BadRequest(problem="--since is later than --until", remedy="Exchange them")
    return since, until


def named(args: argparse.Namespace) -> bool:
    """Whether runs were named one by one. Raises BadRequest when it is not told which are meant, or told twice."""
    spanned = args.all or args.since is not None or args.until is not None
    if bool(args.run) == bool(spanned):
        problem = "runs are named or selected, not both" if args.run else "no run was named"
        raise BadRequest(problem=problem, remedy="Give RUN ids, or --all, or --since and --until")
    return bool(args.run)


def chosen(trace: Trace, args: argparse.Namespace, now_us: Callable[[], int]) -> list[Run]:
    """The runs that are meant, oldest first; of a selection only those that nobody called. Raises BadRequest, UnknownRun."""
    if named(args):
        return [trace.run(RunId(run)) for run in dict.fromkeys(args.run)]
    since, until = between(args, now_us)
    found = [run for run in trace.runs(since_us=since, until_us=until) if run.parent is None]
    return found[::-1]


def nothing(args: argparse.Namespace) -> BadRequest:
    """What to say when a selection is empty."""
    where = "in that time" if args.since or args.until else "in the trace"
    return BadRequest(problem=f"there is no run {where}", remedy="`retroact runs` lists what there is")
