"""`retroact migrate`: bring the database up to date, each migration a recorded transaction.

This module must not know how a migration is run.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from retroact.cli import opening, project
from retroact.cli.output import Cell, Progress, note, out, print_json, table
from retroact.cli.shown import count
from retroact.cli.times import iso, show

if TYPE_CHECKING:
    from retroact.engine.sqlite.migration import Migration, Standing


def options(parser: argparse.ArgumentParser) -> None:
    """The options of `migrate`."""
    parser.add_argument("folder", metavar="FOLDER", nargs="?", help="the migrations (default: `migrations` beside retroact.toml)")
    parser.add_argument("--status", action="store_true", help="show which migrations were applied, and when")
    parser.add_argument("--dry-run", action="store_true", help="show what would be run, and run nothing")
    project.options(parser)
    parser.epilog = (
        "Files are numbered: 0001_create.sql, 0002_fill.py (with a function `migrate(conn)`). Each is run once, in order, as one\n"
        "transaction; one that fails leaves nothing. What was applied must not be changed: write a new one.\n"
        "Exit code with --status: 1 if migrations are waiting.\n"
        "Example: retroact migrate --dry-run"
    )


def call(args: argparse.Namespace) -> int:
    """Migrate, or tell how things stand."""
    from retroact.engine.sqlite.migration import read_folder

    path = project.file_of(project.database(args))
    migrations = read_folder(project.migrations(args.folder))
    if args.status or args.dry_run:
        found = opening.standing_of(path, migrations)
        shown = found.pending if args.dry_run else found.migrations
        if args.json:
            print_json([_value(m, found) for m in shown])
        elif args.dry_run:
            _would(found)
        else:
            _status(found)
        return 1 if args.status and found.pending else 0
    with opening.app_on(path) as app, Progress("migrating") as progress, opening.silenced():
        progress.tick()
        done = {applied.number for applied in app.migrate(migrations)}
        found = opening.standing_of(path, migrations)
    if args.json:
        print_json([_value(m, found) for m in migrations if m.number in done])
    elif not done:
        out(f"nothing to do: {_count(len(migrations))} applied already" if migrations else "nothing to do: there are no migrations")
    else:
        for migration in migrations:
            if migration.number in done:
                out(f"applied {migration.path.name} as version {found.applied[migration.number].version:,}")
    return 0


def _count(number: int) -> str:
    return count(number, "migration")


def _would(found: Standing) -> None:
    if not found.pending:
        out(f"nothing to do: {_count(len(found.migrations))} applied already")
        return
    for migration in found.pending:
        out(f"{migration.path.name}  {_size(migration)}")
        for piece in migration.pieces or ():
            out(f"  line {piece.line:<4} {' '.join(piece.sql.split())[:100]}")
    note(f"{_count(len(found.pending))} would be run. Nothing was changed.")


def _status(found: Standing) -> None:
    rows: list[list[Cell | str]] = []
    for migration in found.migrations:
        done = found.applied.get(migration.number)
        when = show(done.began_us) if done else ""
        state = Cell("applied", "green") if done else Cell("waiting", "yellow")
        rows.append([migration.path.name, state, str(done.version) if done else "", when, migration.hash])
    if not rows:
        out("there are no migrations")
        return
    table(["migration", "state", "version", "when", "hash"], rows, right=(2,))


def _size(migration: Migration) -> str:
    return "Python" if migration.pieces is None else count(len(migration.pieces), "statement")


def _value(migration: Migration, found: Standing) -> dict[str, Any]:
    done = found.applied.get(migration.number)
    return {
        "number": migration.number,
        "file": migration.path.name,
        "hash": migration.hash,
        "statements": None if migration.pieces is None else len(migration.pieces),
        "applied": done is not None,
        "version": done.version if done else None,
        "when": iso(done.began_us) if done else None,
    }
