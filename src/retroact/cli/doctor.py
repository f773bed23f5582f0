"""`retroact doctor`: is everything in order, and if not, what to do.

This module must not know how to mend anything: it looks, and names the command that mends.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import platform
from pathlib import Path
from typing import Any

from retroact.cli import growth, opening, project
from retroact.cli.failure import NO
from retroact.cli.output import Progress, out, paint, print_json, width
from retroact.cli.shown import count, size
from retroact.cli.times import show
from retroact.diagram import phrase
from retroact.errors import RetroactError
from retroact.trace.record import RunState
from retroact.trace.verification import Verification


def options(parser: argparse.ArgumentParser) -> None:
    """The options of `doctor`."""
    project.options(parser, code=True)
    parser.epilog = "Exit code 1: something is wrong; each problem is told with what to do about it."


@dataclasses.dataclass(slots=True)
class _Findings:
    """What was looked at, by section, and what is wrong."""

    sections: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict[str, dict[str, Any]])
    problems: list[str] = dataclasses.field(default_factory=list[str])

    def add(self, section: str, **facts: Any) -> None:
        self.sections.setdefault(section, {}).update(facts)


def call(args: argparse.Namespace) -> int:
    """Examine and report."""
    found = _Findings()
    _installation(found)
    _code(found, args)
    try:
        path = project.database(args)
    except RetroactError as error:
        found.problems.append(str(error))
    else:
        _database(found, path, args)
    if args.json:
        print_json({**found.sections, "problems": found.problems, "healthy": not found.problems})
    else:
        _show(found)
    return NO if found.problems else 0


def _installation(found: _Findings) -> None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        retroact = version("retroact")
    except PackageNotFoundError:
        retroact = "not installed (run from its source)"
    try:
        driver = version("apsw")
    except PackageNotFoundError:
        driver = "not installed"
        found.problems.append("apsw, which brings SQLite along, is not installed: `pip install retroact` installs both.")
    found.add("installation", python=platform.python_version(), retroact=retroact, sqlite=driver, system=platform.platform(terse=True))


def _code(found: _Findings, args: argparse.Namespace) -> None:
    file = project.nearest(Path.cwd())
    found.add("project", file=str(file) if file else "none")
    if args.code is None and file is None:
        return
    try:
        path = project.code(args)
        module = opening.functions_in(path)
        from retroact.function.registry import Registry

        functions = list(Registry.of(module))
        for function in functions:
            _ = function.schema
    except RetroactError as error:
        found.problems.append(str(error))
        return
    found.add("project", code=str(path), functions=", ".join(sorted(f.name for f in functions)) or "none")


def _server(found: _Findings, url: str) -> None:
    from retroact.cli.server import examine

    try:
        for finding in examine(url):
            if isinstance(finding, str):
                found.problems.append(finding)
            else:
                found.add(finding[0], **finding[1])
    except RetroactError as error:
        found.problems.append(str(error))


def _database(found: _Findings, path: Path | str, args: argparse.Namespace) -> None:
    if isinstance(path, str):
        _server(found, path)
        return
    found.add("database", path=str(path))
    if not path.exists():
        found.add("database", present="not yet: `retroact run` makes it")
        return
    try:
        writer = opening.writer_of(path)
        found.add("database", writer=f"process {writer} has it open" if writer else "nobody", **_file_facts(path))
        _trace(found, path)
        _runs(found, path, living=writer is not None)
        _verification(found, path)
    except RetroactError as error:
        found.problems.append(str(error))
        return
    _page_log(found, path)
    _growth(found, path, args)
    _integrity(found, path)


def _file_facts(path: Path) -> dict[str, Any]:
    facts = opening.settings(path)
    log = path.with_name(path.name + "-wal")
    return {**facts, "size_bytes": path.stat().st_size, "wal_bytes": log.stat().st_size if log.exists() else 0}


def _trace(found: _Findings, path: Path) -> None:
    records, size = opening.trace_size(path)
    found.add("trace", records=records, bytes_per_record=round(size / records) if records else 0)


def _runs(found: _Findings, path: Path, *, living: bool) -> None:
    states = dict(opening.ask(path, "select state, count(*) from retroact_runs group by state order by state"))
    found.add("runs", **{str(state): states[state] for state in states})
    with contextlib.closing(opening.file_trace(path)) as trace:
        waiting = trace.open_runs()
    for run in waiting:
        if run.state is RunState.STOPPED:
            why = (run.reason or "no reason is told").rstrip(".")
            found.problems.append(f"Run {run.run} of {run.function} is stopped: {why}. Then `retroact resume {run.run}`.")
    interrupted = sum(run.state is RunState.RUNNING and run.parent is None for run in waiting)
    if interrupted and not living:
        found.problems.append(f"{count(interrupted, 'run')} interrupted, and no process is going on with them: `retroact recover` does.")


def _verification(found: _Findings, path: Path) -> None:
    """What executing a sample of the transactions a second time has found. Where the code has changed since, it is a fact only."""
    with contextlib.closing(opening.file_trace(path)) as trace:
        verified = trace.verified()
        if verified is None:
            return
        functions: dict[str, Verification] = {}
        for each in verified.diverged:
            (record,) = trace.records_between(each.version - 1, each.version)
            if record.fingerprint == trace.newest_fingerprint(each.function):
                functions.setdefault(each.function, each)
    found.add("verification", checked=verified.checked, left_out=verified.left_out, diverged=len(verified.diverged))
    for name, each in functions.items():
        where = f"statement {each.statement}" if each.statement else "its changes or its outcome"
        found.problems.append(
            f"{name} is not deterministic: executed a second time, run {each.run} (version {each.version}) parted from its record at "
            f"{where}. `retroact lint` names what in its code may be the cause; `retroact replay {each.run}` shows what it did."
        )


def _page_log(found: _Findings, path: Path) -> None:
    side = path.with_name(path.name + "-pages")
    if not side.exists():
        found.add("page log", present="no: the past cannot be opened (the App was made with recording=False)")
        return
    try:
        with opening.home_of(path) as history, Progress("checking the page log"):
            first, last = history.pages.horizon, history.pages.last_commit
            found.add(
                "page log",
                size_bytes=side.stat().st_size,
                from_version=first.version,
                to_version=last.version,
                horizon=show(first.persisted_us) if first.persisted_us else "the beginning",
            )
            damages = [str(damage) for damage in history.pages.verify()]
    except RetroactError as error:
        damages = [str(error)]
    found.add("integrity", page_log="damaged" if damages else "whole")
    found.problems += damages[:5]


def _growth(found: _Findings, path: Path, args: argparse.Namespace) -> None:
    try:
        retention = project.retention(args)
        facts = growth.growth(path, retention)
        with contextlib.closing(opening.file_trace(path)) as trace:
            horizon = trace.horizon()
    except RetroactError as error:
        found.problems.append(str(error))
        return
    found.add("growth", **facts)
    if horizon.version:
        found.add("growth", horizon=f"version {horizon.version:,} ({show(horizon.began_us)}); what is older was dropped")
    for table, limit in horizon.tables.items():
        found.add("growth", **{f"horizon_of_{table}": f"version {limit.version:,} ({show(limit.began_us)})"})
    if facts.get("days_until_the_limit") == 0:
        found.problems.append(
            f"The history is larger than the limit of {size(facts['limit_bytes'])}: `retroact compact` drops what is too much."
        )


def _integrity(found: _Findings, path: Path) -> None:
    try:
        with contextlib.closing(opening.file_trace(path)) as trace, Progress("checking the records"):
            last = trace.verify()
        found.add("integrity", records=f"whole up to version {last}")
    except RetroactError as error:
        found.add("integrity", records="damaged")
        found.problems.append(str(error))
    answer = [row[0] for row in opening.ask(path, "pragma quick_check(5)")]
    found.add("integrity", pages="whole" if answer == ["ok"] else "damaged")
    if answer != ["ok"]:
        found.problems.append(f"SQLite finds {path} damaged: {'; '.join(answer)}. Restore it from a backup.")


def _show(found: _Findings) -> None:
    for title, facts in found.sections.items():
        out(paint(title[0].upper() + title[1:], "bold"))
        for name, value in facts.items():
            shown = size(value) if name.endswith("_bytes") else f"{value:,}" if isinstance(value, int) else str(value)
            style = "red" if value == "damaged" else "green" if str(value).startswith("whole") else ""
            label = name.removesuffix("_bytes").replace("_", " ")
            out(f"  {label:<17} {paint(phrase.shorten_end(shown, max(width() - 21, 30)), style)}")
        out()
    if not found.problems:
        out(paint("Everything is in order.", "green"))
        return
    out(paint(f"{count(len(found.problems), 'problem')}:", "red"))
    for problem in found.problems:
        out(f"  {paint('✗', 'red')} {problem}")
