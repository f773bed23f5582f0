"""`retroact compact`: drop what is no longer kept of the past, also of a database that another process is writing.

This module must not know how the past is dropped.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retroact.cli import opening, project
from retroact.cli.failure import BadRequest
from retroact.cli.output import Progress, note, out, paint, print_json
from retroact.cli.shown import size
from retroact.cli.times import iso, show
from retroact.trace.retention import Horizon, Retention

if TYPE_CHECKING:
    from retroact.engine.sqlite.compaction import Compacted


def options(parser: argparse.ArgumentParser) -> None:
    """The options of `compact`."""
    parser.add_argument("--keep-days", metavar="N", type=float, help="keep the past of so many days")
    parser.add_argument("--keep-size", metavar="SIZE", help="keep at most so much history, the newest: 500MB, 1GB")
    parser.add_argument(
        "--table",
        metavar="NAME:AGE",
        action="append",
        default=[],
        help="forget the rows of a table earlier: sessions:7d (may be given again)",
    )
    parser.add_argument("--outcomes", metavar="AGE", help="forget also run ids and outcomes of this age (default: they are kept forever)")
    parser.add_argument("--vacuum", action="store_true", help="write the database anew, so that its own file shrinks too")
    parser.add_argument("--dry-run", action="store_true", help="only say what would be dropped")
    project.options(parser)
    parser.epilog = (
        f"Without --keep-days and --keep-size, [retention] in {project.FILE} says what is kept. What is older is refused by `asof`,\n"
        "`replay` and `retro` from then on; an old run id is still not run twice. Works beside the process that writes the database.\n"
        "Example: retroact compact --keep-days 30 --keep-size 1GB --table sessions:7d --dry-run"
    )


def call(args: argparse.Namespace) -> int:
    """Compact, here or in the process that writes."""
    path = project.past(args)
    retention = _retention(args)
    with Progress("compacting") as progress:
        progress.tick()
        found = _here(path, retention, args) if opening.writer_of(path) is None else _there(path, retention, args)
    if args.json:
        print_json(_value(found, vacuumed=args.vacuum and not args.dry_run))
    else:
        _show(found, path, vacuumed=args.vacuum and not args.dry_run)
    return 0


def _retention(args: argparse.Namespace) -> Retention:
    """What is to be kept. Raises BadRequest, BadRetention."""
    told = project.retention(args)
    if args.keep_days is None and args.keep_size is None and not args.table and args.outcomes is None:
        if told is None and not args.vacuum:
            raise BadRequest(
                problem="nothing says what is to be kept",
                remedy=f'Give --keep-days N or --keep-size SIZE, or write age = "30d" under [retention] into {project.FILE}',
            )
        return told or Retention()
    tables: dict[str, str] = {}
    for each in args.table:
        name, colon, age = each.rpartition(":")
        if not colon or not name:
            raise BadRequest(problem=f"--table {each} does not say how long", remedy="Give the table and an age: --table sessions:7d")
        tables[name] = age
    age = None if args.keep_days is None else f"{args.keep_days:f}d"
    return Retention(age=age, size=args.keep_size, tables=tables, outcomes=args.outcomes)


def _here(path: Path, retention: Retention, args: argparse.Namespace) -> Compacted:
    with opening.app_on(path) as app:
        found = app.compact(retention, dry_run=args.dry_run)
        if args.vacuum and not args.dry_run:
            app.vacuum()
    return found


def _there(path: Path, retention: Retention, args: argparse.Namespace) -> Compacted:
    """Ask the process that writes. Raises Unanswered, and what it raised."""
    request: dict[str, Any] = {
        "what": "compact",
        "retention": {"age": retention.age, "size": retention.size, "tables": dict(retention.tables), "outcomes": retention.outcomes},
        "dry": args.dry_run,
        "vacuum": args.vacuum and not args.dry_run,
    }
    return opening.asked(path, request)


def _show(found: Compacted, path: Path, *, vacuumed: bool) -> None:
    would = "would be" if found.dry else "is"
    before, after = found.before, found.after
    if not found.moved:
        out("nothing is old enough to be dropped" if found.bytes_after >= found.bytes_before else "no version was dropped")
    if after.version > before.version:
        out(f"{paint('horizon', 'dim')}   {would} version {_at(after)}, was {_at(before) if before.version else 'the beginning'}")
    for table, limit in after.tables.items():
        out(f"{paint('table', 'dim')}     {table} {would} forgotten up to version {limit.version} ({show(limit.began_us)})")
    if after.outcomes > before.outcomes:
        out(f"{paint('outcomes', 'dim')}  {would} forgotten up to version {after.outcomes}: these run ids can be used again")
    saved = found.bytes_before - found.bytes_after
    told = f", {size(saved)} less" if saved > 0 else ""
    out(f"{paint('history', 'dim')}   {size(found.bytes_before)} -> {size(found.bytes_after)}{told}")
    if vacuumed:
        out(f"{paint('database', 'dim')}  {path} was written anew and has {size(path.stat().st_size)}")
    if found.dry:
        note("Nothing was changed. Without --dry-run it is dropped.")


def _at(horizon: Horizon) -> str:
    return f"{horizon.version:,} ({show(horizon.began_us)})"


def _value(found: Compacted, *, vacuumed: bool) -> dict[str, Any]:
    return {
        "dry_run": found.dry,
        "before": _horizon(found.before),
        "after": _horizon(found.after),
        "bytes_before": found.bytes_before,
        "bytes_after": found.bytes_after,
        "vacuumed": vacuumed,
    }


def _horizon(of: Horizon) -> dict[str, Any]:
    return {
        "version": of.version,
        "began": iso(of.began_us) if of.began_us else None,
        "outcomes": of.outcomes,
        "tables": {table: {"version": limit.version, "began": iso(limit.began_us)} for table, limit in of.tables.items()},
    }
