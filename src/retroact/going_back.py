"""What can be asked of a past, wherever it lies: replay, a close look, retroaction, other schedules.

Whoever has a history inherits this. This module must not know engines.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retroact.errors import UnknownStep
from retroact.function.code import load_path
from retroact.function.kind import Kind
from retroact.function.registry import Registry
from retroact.trace.record import RunId

if TYPE_CHECKING:
    from retroact.engine.contract import History
    from retroact.provenance.transaction import TransactionView
    from retroact.replay.replayer import Report
    from retroact.retroaction.difference import Difference
    from retroact.retroaction.exploration import Exploration, Options, Play
    from retroact.retroaction.explorer import Explorer
    from retroact.retroaction.ground import Around


class GoingBack:
    """Runs the past again. Who inherits it says which past, and what to do so that all of it can be seen."""

    #: The functions of today: asked where the trace has no code of its own.
    registry: Registry

    def _past(self) -> History:
        """The past, up to this moment."""
        raise NotImplementedError

    def replay(self, runs: Iterable[str]) -> Report:
        """Run the past again, and compare: each transaction of the runs at the state that it saw. Raises UnknownRun."""
        from retroact.replay.workflows import replay_runs

        history = self._past()
        return replay_runs(history, [RunId(run) for run in runs], fallback=self.registry)

    def look_at(self, run: str, step: int = 0) -> TransactionView:
        """One transaction, looked at whole: its statements with their results, its rows before and after, who wrote what it read,
        who read what it wrote. `step` is its number in its workflow. Raises UnknownRun, UnknownStep."""
        from retroact.provenance.transaction import look_at
        from retroact.replay.shelf import Shelf

        history = self._past()
        records = history.trace.records_of(history.trace.run(RunId(run)).run)
        record = next((r for r in reversed(records) if r.step == step and r.kind == Kind.TRANSACTION.value), None)
        if record is None:
            raise UnknownStep(run=run, step=step, steps=[r.step for r in records if r.kind == Kind.TRANSACTION.value])
        shelf = Shelf(history.trace, self.registry)
        try:
            return look_at(history, record, shelf.function)
        finally:
            shelf.close()

    def retroact(
        self, runs: Iterable[str], changed: str | Path | Registry, answers: Mapping[str, Any] | None = None, *, full: bool = False
    ) -> Difference:
        """Run changed code (a file, a folder or a registry) over the past of the runs. Raises UnknownRun, UnknownFunction.

        What cannot differ is not run again, unless everything is to be: `full`. The answer is the same."""
        from retroact.replay.shelf import Shelf
        from retroact.retroaction.retroactor import Retroactor

        history = self._past()
        registry = changed if isinstance(changed, Registry) else Registry.of(load_path(Path(changed)))
        shelf = Shelf(history.trace, self.registry)
        try:
            return Retroactor(history, shelf, registry, answers, full=full).run([RunId(run) for run in runs])
        finally:
            shelf.close()

    def explore(self, runs: Iterable[str], changed: str | Path | Registry | None = None, options: Options | None = None) -> Exploration:
        """Look at what would have come of the runs in other schedules, with the code that they ran with or with changed code.

        Raises UnknownRun, UnknownFunction, SourceMissing, NotRepeatable.
        """
        with self._explorer(changed, options) as explorer:
            return explorer.explore([RunId(run) for run in runs])

    def perform(
        self,
        runs: Iterable[str],
        schedule: str,
        changed: str | Path | Registry | None = None,
        options: Options | None = None,
        around: Around | None = None,
    ) -> Play:
        """Run the runs in one schedule, as an exploration writes it down. `around` stands around each transaction, as a debugger
        does: it is given the invocation and what executes it, and returns what that returned. Raises BadSchedule besides."""
        with self._explorer(changed, options) as explorer:
            return explorer.perform([RunId(run) for run in runs], schedule, around)

    @contextlib.contextmanager
    def _explorer(self, changed: str | Path | Registry | None, options: Options | None) -> Generator[Explorer]:
        from retroact.replay.shelf import Shelf
        from retroact.retroaction.explorer import Explorer

        history = self._past()
        registry = Registry.of(load_path(Path(changed))) if isinstance(changed, str | Path) else changed
        shelf = Shelf(history.trace, self.registry)
        try:
            yield Explorer(history, shelf, registry, options)
        finally:
            shelf.close()
