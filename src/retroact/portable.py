"""Portable traces: some runs in one file, which is replayed and retroacted elsewhere, without the database and without the code base.

    export("shop.db", ["order-7"], "bug.retro")

    with open_portable("bug.retro") as past:
        past.replay()
        past.retroact("fixed.py").clean

The composition root of a file, as app.py is that of a database. It must not know the command line, nor an App.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Generator, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from retroact.engine.sqlite.history import History
from retroact.engine.sqlite.portable import file
from retroact.engine.sqlite.portable.exporter import Exporter
from retroact.engine.sqlite.portable.history import PortableHistory, opened
from retroact.engine.sqlite.portable.widen import Wider, touched_rows
from retroact.errors import LoadFailed, SourceMissing
from retroact.function.code import load_path
from retroact.function.declare import Function
from retroact.function.registry import Registry
from retroact.replay.divergence import Verdict
from retroact.replay.replayer import Progress, Report, chosen_records
from retroact.replay.shelf import Shelf
from retroact.replay.workflows import replay_runs
from retroact.retroaction.difference import Difference
from retroact.retroaction.retroactor import Retroactor
from retroact.retroaction.run_through import run_through
from retroact.trace.record import Record, Run, RunId


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ExportOptions:
    """What is exported besides what replay and retroaction need, and what is not told."""

    #: Tables to take whole.
    tables: tuple[str, ...] = ()
    #: Take everything.
    whole: bool = False
    #: Columns whose values are replaced, as TABLE.COLUMN.
    redact: tuple[str, ...] = ()
    #: Replace a file that is there.
    overwrite: bool = False


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """What an export wrote."""

    path: Path
    size: int
    #: The state that the file begins in, and the last version that it has.
    base: int
    last: int
    records: int
    pages: int
    #: Of how many pages the database had.
    pages_at_home: int
    page_size: int
    #: The chosen runs replayed from the file.
    report: Report
    #: The columns that were redacted: those asked for, and those tied to them by foreign keys.
    redacted: tuple[str, ...] = ()
    #: What is to be known about the file, a sentence each.
    notes: tuple[str, ...] = ()

    @property
    def told(self) -> tuple[str, ...]:
        """What of the runs did not replay identically from the file, a sentence each."""
        return tuple(not_identical(self.report))

    @property
    def faithful(self) -> bool:
        """Whether all that was chosen replays from the file as it does at home: identically, unless it cannot be run at all."""
        return self.report.faithful


def export(
    database: str | Path,
    runs: Iterable[str],
    to: str | Path,
    options: ExportOptions | None = None,
    *,
    fallback: Registry | None = None,
    progress: Progress | None = None,
) -> Exported:
    """Write runs of a database into one file, and replay them from there. `fallback` has functions whose source was not recorded.

    Raises UnknownRun, UnknownTable, AlreadyThere, CannotRedact, BeyondHistory, DamagedTrace, DamagedPage.
    """
    options = options or ExportOptions()
    path, chosen = Path(to), [RunId(run) for run in dict.fromkeys(runs)]
    file.must_be_free(path, overwrite=options.overwrite)
    home = History(Path(database))
    try:
        with _exporter(home, chosen) as exporter:
            if options.redact:
                _redact(exporter, home, options.redact, chosen, fallback)
            run_through(exporter.history, chosen, fallback=fallback, progress=progress)
            changes = (c for r in exporter.history.trace.records_between(exporter.base, exporter.last) for c in r.changes)
            exporter.widen(Wider(tables=options.tables, whole=options.whole, touched=touched_rows(changes)))
            sections, notes = exporter.sections(chosen)
            pages_at_home = exporter.pages.states[0].pages
            base, last = exporter.base, exporter.last
        content = file.pack(sections)
        with open_sections(path, sections) as past:
            report = run_through(past.history, chosen)
            redacted = past.redacted
            records = sum(1 for _ in past.history.trace.records_between(base, last))
        file.write(path, content, overwrite=options.overwrite)
    finally:
        home.close()
    size = past.history.pages.page_size
    return Exported(
        path=path,
        size=len(content),
        base=base,
        last=last,
        records=records,
        pages=len(sections["images"]) // size,
        pages_at_home=pages_at_home,
        page_size=size,
        report=report,
        redacted=redacted,
        notes=tuple(notes),
    )


def _redact(exporter: Exporter, home: History, columns: Sequence[str], chosen: Sequence[RunId], fallback: Registry | None) -> None:
    """Under a key that nobody keeps."""
    shelf = Shelf(home.trace, fallback)

    def function_of(record: Record) -> Function[..., Any] | None:
        try:
            return shelf.function(record)
        except (SourceMissing, LoadFailed):
            return None

    try:
        exporter.redact(columns, os.urandom(32), function_of, chosen)
    finally:
        shelf.close()


@contextlib.contextmanager
def _exporter(home: History, chosen: Sequence[RunId]) -> Generator[Exporter]:
    records = chosen_records(home, chosen)
    newest = home.trace.last_version()
    first = min((record.snapshot for record in records), default=newest)
    exporter = Exporter(home, first, max((record.version for record in records), default=newest))
    try:
        yield exporter
    finally:
        exporter.close()


class Past:
    """A portable trace, open for reading."""

    def __init__(self, history: PortableHistory) -> None:
        self.history = history

    def runs(self) -> list[Run]:
        """The runs that it has whole, newest first."""
        return self.history.trace.runs()

    @property
    def chosen(self) -> tuple[RunId, ...]:
        """The runs that were exported by name or selection."""
        contents = self.history.contents
        return tuple(map(RunId, contents.chosen)) if contents else ()

    @property
    def redacted(self) -> tuple[str, ...]:
        """The columns whose values were replaced, as TABLE.COLUMN."""
        contents = self.history.contents
        return tuple(contents.redacted) if contents else ()

    def replay(self, runs: Iterable[str] | None = None) -> Report:
        """Run the past again, and compare; without runs, those that were chosen. Raises UnknownRun, NotExported."""
        return replay_runs(self.history, self._meant(runs))

    def retroact(
        self,
        changed: str | Path | Registry,
        runs: Iterable[str] | None = None,
        answers: Mapping[str, Any] | None = None,
        *,
        full: bool = False,
    ) -> Difference:
        """Run changed code over the past; without runs, over those that were chosen. Raises UnknownRun, NotExported.

        What cannot differ is not run again, unless everything is to be: `full`. The answer is the same."""
        registry = changed if isinstance(changed, Registry) else Registry.of(load_path(Path(changed)))
        shelf = Shelf(self.history.trace)
        try:
            return Retroactor(self.history, shelf, registry, answers, full=full).run(self._meant(runs))
        finally:
            shelf.close()

    def close(self) -> None:
        """Let it go."""
        self.history.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _meant(self, runs: Iterable[str] | None) -> list[RunId]:
        return list(self.chosen) if runs is None else [RunId(run) for run in runs]


def open_sections(path: Path, sections: Mapping[str, bytes]) -> Past:
    """The past in sections that are not in a file yet."""
    return Past(opened(path, sections))


def open_portable(path: str | Path) -> Past:
    """Open a portable trace. Raises NoProject, DamagedFile, NewerDatabase."""
    return open_sections(Path(path), file.read(Path(path)))


def not_identical(report: Report) -> list[str]:
    """What of a replay was not identical, a sentence each."""
    told = [
        f"version {t.record.version}, {t.record.function} of run {t.record.run}: {t.verdict.value}"
        for t in report.transactions
        if t.verdict in (Verdict.DIVERGED, Verdict.RECORDED_RESULTS)
    ]
    return told + [f"the body of run {w.run.run}: {w.verdict.value}" for w in report.workflows if w.verdict is not Verdict.IDENTICAL]
