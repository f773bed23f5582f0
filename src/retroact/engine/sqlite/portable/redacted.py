"""A redacted export: the states and records of a span without some values, and the search for what is left of them.

This module must not know how a record's code is loaded.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import apsw

from retroact.engine.sqlite.branch import Branch
from retroact.engine.sqlite.portable import btree
from retroact.engine.sqlite.portable.columns import Column, redact, resolve
from retroact.engine.sqlite.portable.disguise import Disguise
from retroact.engine.sqlite.portable.history import PortableHistory, PortableTrace, records_database
from retroact.engine.sqlite.portable.pages import NotedPages
from retroact.engine.sqlite.portable.records import Row, TraceDraft
from retroact.engine.sqlite.portable.redactor import FunctionOf, Redactor
from retroact.engine.sqlite.portable.secrets import Secrets, finder
from retroact.engine.sqlite.queries import fetch
from retroact.engine.sqlite.timetravel import PastFile, TimeTravel
from retroact.errors import CannotRedact
from retroact.trace.codec import decode_json
from retroact.trace.record import Record, Version

_JSON = ("arguments", "value", "failure", "statements", "changes")
_ELSEWHERE = "Redact the column that it is in as well: --redact TABLE.COLUMN."


class Redacted:
    """One span, redacted."""

    def __init__(self, path: Path, base: int, columns: Sequence[str], key: bytes) -> None:
        self._path = path
        self._base = base
        self._asked = columns
        self._secrets = Secrets(Disguise(key).cell)
        self.columns: list[Column] = []
        self._trace = b""

    def make(
        self,
        travel: TimeTravel,
        commits: Sequence[int],
        source: apsw.Connection,
        span: tuple[list[Row], list[Record]],
        function_of: FunctionOf,
    ) -> list[tuple[int, PastFile]]:
        """Redact the first of some past states, and the records that follow. The states of the span. Raises CannotRedact."""
        opened = [travel.open(commit) for commit in commits]
        self.columns = resolve(opened, self._asked)
        for other in opened[1:]:
            other.close()
        database = opened[0]
        redact(database, self.columns, self._secrets.hide)
        states: list[tuple[int, PastFile]] = [(self._base, travel.freeze(database))]
        branch = Branch(database, Version(self._base))
        rows, records = span
        redactor = Redactor(source, branch, self.columns, self._secrets)
        redactor.learn(records)
        self.rows = redactor.rewrite(rows, records, function_of, lambda version: states.append((version, travel.freeze(database))))
        self.redactor = redactor
        branch.close()
        return states

    def fill(self, draft: TraceDraft, runs: Sequence[str]) -> bytes:
        """The tables of the trace, from a draft that begins a chain of its own. Raises CannotRedact."""
        self.redactor.name_texts(draft)
        for row in self.rows:
            draft.add_record(row)
        for run in runs:
            row = draft.run_row(run)
            if row is not None:
                draft.add_run(self.redactor.run_row(row))
        return draft.image()

    def history(self, pages: NotedPages, trace: bytes) -> PortableHistory:
        """The redacted past, to be run again."""
        reader = PortableTrace(self._path, records_database(self._path, trace), self._base, 0)
        return PortableHistory(self._path, pages, reader, [])

    def search(self, trace: bytes, images: Sequence[dict[int, bytes]], roots: Sequence[dict[int, tuple[str, str]]]) -> list[str]:
        """What to know of values that are still there: in code and in the schema they are told, anywhere else refused."""
        notes = list(self._in_records(records_database(self._path, trace)))
        found_in = finder(self._secrets.in_bytes())
        for state, names in zip(images, roots, strict=True):
            for page, image in state.items():
                if found_in(image):
                    table = names.get(btree.root_of(state, page), ("", "an unknown table"))[1]
                    if table != "sqlite_schema":
                        raise self._refused(f"one of its values also stands in {table}", _ELSEWHERE)
                    notes.append("A redacted value stands in the text of the schema (a default, a check, a trigger); it was left there.")
        return list(dict.fromkeys(notes))

    def _in_records(self, database: apsw.Connection) -> Iterator[str]:
        for digest, text in fetch(database, "select hash, text from retroact_source"):
            if self._secrets.left_in(text) is not None:
                yield f"A redacted value stands in the source of {self._module_of(database, digest)}; code is exported as it was."
        for (text,) in fetch(database, "select text from retroact_sql"):
            if self._secrets.left_in(text) is not None:
                yield "A redacted value stands in the text of a statement, written there by code; it was left there."
        for (run,) in fetch(database, "select run from retroact_record union select run from retroact_run"):
            if self._secrets.left_in(run) is not None:
                raise self._refused(f"one of its values stands in the id of run {run}", "Export other runs: ids are not replaced.")
        for table, columns in (("retroact_record", _JSON), ("retroact_run", _JSON[:3])):
            for row in fetch(database, f"select {', '.join(columns)} from {table}"):  # noqa: S608 - names of ours
                self._must_be_clean(row, columns)

    def _must_be_clean(self, row: Row, columns: Sequence[str]) -> None:
        for name, stored in zip(columns, row, strict=True):
            if stored is not None and any(self._secrets.left_in(text) is not None for text in _texts(decode_json(stored))):
                raise self._refused(f"one of its values also stands in the {name} of a record", _ELSEWHERE)

    @staticmethod
    def _module_of(database: apsw.Connection, source: str) -> str:
        listed = fetch(database, "select sources from retroact_code")
        return next((n for (sources,) in listed for n, _, h in decode_json(sources) if h == source), source)

    def _refused(self, problem: str, remedy: str) -> CannotRedact:
        return CannotRedact(column=", ".join(map(str, self.columns)), problem=problem, remedy=remedy)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        inner: Any = value.values() if isinstance(value, dict) else value  # pyright: ignore[reportUnknownVariableType]
        for one in inner:
            yield from _texts(one)
