"""`retroact replay --debug` and `--listen`: a replay that somebody looks into.

This module must not know how a debugger works, nor how a transaction is executed again.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from retroact.cli import opening
from retroact.cli.failure import BadRequest
from retroact.cli.output import note, out, paint
from retroact.cli.shown import count
from retroact.replay.places import Places
from retroact.replay.shelf import Shelf
from retroact.trace.record import Run, RunId

if TYPE_CHECKING:
    from retroact.engine.contract import History
    from retroact.replay.replayer import Report

ADDRESS = "127.0.0.1:5678"


def options(parser: argparse.ArgumentParser) -> None:
    """Add --debug, --break and --listen."""
    prompt_options(parser, "stop in pdb at the first line of each function, on the state that it saw")
    parser.add_argument(
        "--listen",
        metavar="HOST:PORT",
        nargs="?",
        const=ADDRESS,
        help=f"offer the same to an editor, through debugpy (default {ADDRESS}; only this machine is listened to)",
    )


def prompt_options(parser: argparse._ArgumentGroup | argparse.ArgumentParser, meaning: str) -> None:  # pyright: ignore[reportPrivateUsage]
    """Add --debug, with what it means, and --break."""
    parser.add_argument("--debug", action="store_true", help=meaning)
    parser.add_argument(
        "--break", dest="breaks", metavar="FUNCTION", action="append", default=[], help="stop only there (may be given several times)"
    )


def asked(args: argparse.Namespace) -> bool:
    """Whether the replay is to be looked into. Raises BadRequest for what does not go together."""
    if args.breaks and not args.debug and args.listen is None:
        raise BadRequest(problem="--break says where to stop, and nothing stops", remedy="Add --debug, or --listen for an editor")
    if args.debug and args.listen is not None:
        raise BadRequest(problem="--debug asks here and --listen asks in an editor", remedy="Give one of them")
    if not args.debug and args.listen is None:
        return False
    if args.debug:
        must_converse(args, "for an editor there is --listen, and for programs `retroact trace RUN --step N --json`")
    return True


def must_converse(args: argparse.Namespace, otherwise: str) -> None:
    """Raises BadRequest where nobody could be asked at a prompt; `otherwise` is what there is instead."""
    if args.json:
        raise BadRequest(problem="--debug is a conversation, and --json is one value", remedy="Leave one of them out")
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise BadRequest(problem="--debug asks at a terminal, and there is none", remedy=f"Call it in a terminal; {otherwise}")


def replay(history: History, runs: Sequence[Run], args: argparse.Namespace) -> Report:
    """Replay runs with somebody looking into it."""
    from retroact.replay.session import Session

    shelf = Shelf(history.trace)
    try:
        if args.debug:
            from retroact.cli.debugger import Debugger

            places = _places(history, shelf, runs, args.breaks)
            debugger = Debugger(places)
            session = Session(history, shelf, [RunId(run.run) for run in runs], debugger)
            _welcome(runs, len(session.records))
            report = debugger.run_session(session)
        else:
            from retroact.cli import listening

            listener = listening.Listener(listening.address(args.listen), _places(history, shelf, runs, args.breaks))
            session = Session(history, shelf, [RunId(run.run) for run in runs], listener)
            with opening.silenced() if args.json else contextlib.nullcontext():
                report = listener.run_session(session)
        if session.left:
            note(f"left after {len(report.transactions)} of {count(len(session.records), 'transaction')}")
        return report
    finally:
        shelf.close()


def _places(history: History, shelf: Shelf, runs: Sequence[Run], names: Sequence[str]) -> Places:
    from retroact.replay.replayer import chosen_records

    records = [record for record in chosen_records(history, [RunId(run.run) for run in runs]) if record.kind == "transaction"]
    places = Places(shelf, [*runs, *records], names)
    if places.answered:
        problem = f"{', '.join(sorted(places.answered))} is not run again: what came of it is answered from the record"
        raise BadRequest(problem=problem, remedy="Stop in the workflow that calls it")
    if places.missing:
        problem = f"there is no function {', '.join(places.missing)} in the code of these runs"
        raise BadRequest(problem=problem, remedy=f"There are: {', '.join(sorted(places.known)) or 'none'}")
    return places


def _welcome(runs: Sequence[Run], total: int) -> None:
    what = f"run {runs[0].run}" if len(runs) == 1 else count(len(runs), "run")
    out(f"{paint(what, 'bold')}: {count(total, 'transaction')}, on the states that they saw. Nothing here changes the database.")
    out(paint("`help` tells what can be asked; `c` goes on to the next function, `q` leaves.", "dim"))
