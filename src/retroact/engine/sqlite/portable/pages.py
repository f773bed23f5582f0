"""The pages of a few past states: taken note of while they are read at home, or kept in a portable trace.

Both answer like a page log whose commits are the states, numbered from 0. From the newest state before it every version is reached row
by row, so a state is needed only where the span begins and after each change of the schema.

Invariant: a page that is not kept is never made up. Asking for it raises NotExported, and the question is remembered for the thread
that asked, because a body may catch what it does not understand.

This module must not know files, the trace, or why a page is read.
"""

from __future__ import annotations

import dataclasses
import threading
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from pathlib import Path

from retroact.engine.sqlite.pagelog import Commit
from retroact.engine.sqlite.portable import btree
from retroact.engine.sqlite.timetravel import PastFile
from retroact.errors import BeyondHistory, NotExported


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """One past state: the version whose effects are the last in it, and its size in pages."""

    version: int
    pages: int


class States:
    """States in order, as the commits of a page log."""

    def __init__(self, page_size: int, states: Sequence[State], database: Path) -> None:
        self.page_size = page_size
        self.states = tuple(states)
        self._versions = [state.version for state in states]
        self._database = database

    @property
    def horizon(self) -> Commit:
        """The first state."""
        return self.commit(0)

    @property
    def last_commit(self) -> Commit:
        """The last state."""
        return self.commit(len(self.states) - 1)

    def commit(self, number: int) -> Commit:
        """One state, by its number."""
        state = self.states[number]
        return Commit(number=number, version=state.version, pages=state.pages, persisted_us=0, changed_pages=0)

    def commit_of(self, version: int) -> Commit:
        """The newest state that contains no version after `version`. Raises BeyondHistory."""
        number = bisect_right(self._versions, version) - 1
        if number < 0:
            reason = "Earlier states were not exported."
            raise BeyondHistory(version=version, database=self._database, horizon=self._versions[0], reason=reason)
        return self.commit(number)

    def page(self, page_number: int, commit_number: int) -> bytes:
        """One page of a state."""
        raise NotImplementedError

    def begin(self) -> NotExported | None:
        """Forget what was missed on this thread, and return it."""

    def end(self, before: NotExported | None) -> None:
        """Raise NotExported for a page that was missed on this thread since `begin`, which returned `before`."""


class NotedPages(States):
    """Past states at home, and which of their pages were read."""

    def __init__(self, page_size: int, states: Sequence[tuple[int, PastFile]], database: Path) -> None:
        super().__init__(page_size, [State(version=version, pages=file.pages) for version, file in states], database)
        self._files = [file for _, file in states]
        self.noted: list[dict[int, bytes]] = [{} for _ in states]

    def page(self, page_number: int, commit_number: int) -> bytes:
        """One page of a state, noted."""
        noted = self.noted[commit_number]
        image = noted.get(page_number)
        if image is None:
            image = noted[page_number] = self._files[commit_number].image(page_number)
        return image


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What is kept of one state: pages by number, and its b-trees: (name, table) by root page."""

    state: State
    images: Mapping[int, bytes]
    roots: Mapping[int, tuple[str, str]]


class KeptPages(States):
    """The pages of a portable trace."""

    def __init__(self, page_size: int, kept: Sequence[Kept], path: Path) -> None:
        super().__init__(page_size, [part.state for part in kept], path)
        self._kept = tuple(kept)
        self._path = path
        self._missed = threading.local()

    def page(self, page_number: int, commit_number: int) -> bytes:
        """One page of a state. Raises NotExported."""
        image = self._kept[commit_number].images.get(page_number)
        if image is None:
            self._missed.error = self._missing(page_number, commit_number)
            raise self._missed.error
        return image

    def begin(self) -> NotExported | None:
        """Forget what was missed on this thread, and return it."""
        before: NotExported | None = getattr(self._missed, "error", None)
        self._missed.error = None
        return before

    def end(self, before: NotExported | None) -> None:
        """Raise NotExported for a page that was missed on this thread since `begin`, which returned `before`."""
        error: NotExported | None = getattr(self._missed, "error", None)
        self._missed.error = before
        if error is not None:
            raise error

    def _missing(self, page_number: int, commit_number: int) -> NotExported:
        kept = self._kept[commit_number]
        found = kept.roots.get(btree.root_of(kept.images, page_number))
        version = kept.state.version
        if found is None:
            return NotExported(path=self._path, what=f"a long value (page {page_number})", version=version, table="TABLE")
        name, table = found
        what = f"table {table}" if name == table else f"the index {name} of table {table}"
        return NotExported(path=self._path, what=what, version=version, table=table)
