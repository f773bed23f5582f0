"""`retroact export RUN... -o FILE`: runs in one file, to be replayed and retroacted where the database is not.

This module must not know what is in the file.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retroact.cli import opening, project, selection
from retroact.cli.failure import NO
from retroact.cli.output import Progress, note, out, paint, print_json
from retroact.cli.replay import within_history
from retroact.cli.shown import count
from retroact.errors import OnlyForReading
from retroact.replay.divergence import Verdict

if TYPE_CHECKING:
    from retroact.portable import Exported

_UNITS = ("B", "kB", "MB", "GB")
_THOUSAND = 1000
#: Sentences that are shown; --json has them all.
_MOST = 20


def options(parser: argparse.ArgumentParser) -> None:
    """The options of `export`."""
    selection.options(parser)
    parser.add_argument("-o", "--out", metavar="FILE", required=True, help="the file to write, such as bug.retro")
    parser.add_argument("--force", action="store_true", help="replace the file if it is there already")
    parser.add_argument(
        "--tables", metavar="T", action="append", default=[], help="take this table whole, for changed code that reads more (repeatable)"
    )
    parser.add_argument(
        "--redact", metavar="TABLE.COLUMN", action="append", default=[], help="replace the values of a column everywhere (repeatable)"
    )
    parser.add_argument("--whole", action="store_true", help="take every page of the database, whatever its size")
    project.options(parser)
    parser.epilog = (
        f"{parser.epilog}\nExample: retroact export order-7 order-8 -o bug.retro; elsewhere: retroact replay bug.retro --all"
        "\nExit code 1: something does not replay identically from the file."
    )


def call(args: argparse.Namespace) -> int:
    """Export runs and tell what was written."""
    from retroact.portable import ExportOptions

    path = project.past(args)
    if opening.is_portable(path):
        raise OnlyForReading(path=path)
    with opening.history_of(path) as history:
        runs = [run.run for run in within_history(history, selection.chosen(history.trace, args, opening.now_us), args)]
    tables = tuple(table for given in args.tables for table in given.split(","))
    wanted = ExportOptions(tables=tables, whole=args.whole, redact=tuple(args.redact), overwrite=args.force)
    with Progress("replaying", "transactions") as progress, opening.silenced():
        exported = opening.export(path, runs, Path(args.out), wanted, progress)
    if args.json:
        print_json(_value(exported, runs))
    else:
        _show(exported, len(runs))
    return 0 if exported.faithful else NO


def _show(exported: Exported, runs: int) -> None:
    report = exported.report
    span = f"versions {exported.base + 1} to {exported.last}" if exported.last > exported.base else "no record"
    pages = f"{exported.pages:,} of {count(exported.pages_at_home, 'page')}"
    records = f"{count(runs, 'run')}, {count(exported.records, 'record')} ({span})"
    out(f"{paint(str(exported.path), 'bold')}  {_size(exported.size)}: {records}, {pages}")
    if exported.redacted:
        out(f"redacted: {', '.join(exported.redacted)}")
    for title, sentences in (("Not identical from the file", exported.told), ("Note", exported.notes)):
        if sentences:
            out(f"\n{paint(title, 'yellow')}")
            for sentence in sentences[:_MOST]:
                out(f"  {sentence}")
            if len(sentences) > _MOST:
                out(f"  … and {len(sentences) - _MOST:,} more (--json has them all)")
    verdicts = ", ".join(f"{report.count(verdict):,} {verdict.value}" for verdict in Verdict if report.count(verdict))
    out(f"\nreplayed from the file: {verdicts or 'nothing to execute'}")
    note(f"elsewhere: retroact replay {exported.path.name} --all; retroact retro {exported.path.name} --all --with FIXED.py")


def _size(size: float) -> str:
    unit = 0
    while size >= _THOUSAND and unit + 1 < len(_UNITS):
        size, unit = size / _THOUSAND, unit + 1
    return f"{size:.1f} {_UNITS[unit]}" if unit else f"{size:.0f} {_UNITS[unit]}"


def _value(exported: Exported, runs: Sequence[str]) -> dict[str, Any]:
    return {
        "path": str(exported.path),
        "size": exported.size,
        "runs": runs,
        "base": exported.base,
        "last": exported.last,
        "records": exported.records,
        "pages": exported.pages,
        "pages_at_home": exported.pages_at_home,
        "page_size": exported.page_size,
        "verdicts": {verdict.value: exported.report.count(verdict) for verdict in Verdict},
        "redacted": list(exported.redacted),
        "not_identical": list(exported.told),
        "notes": list(exported.notes),
    }
