"""Early cutoff: which recorded transactions need not be run again, because nothing that they could have read differs.

Three things are kept apart. A transaction whose code is unchanged and whose recorded statements cannot reach anything dirty is
*untouched*. One that might reach it has its recorded statements *checked* on the branch. Everything else is executed. Whenever in doubt,
the answer is the dearer one.

This module must not know schedules, workflows or invariants' answers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from retroact.engine.contract import Branch, Entry, Scan
from retroact.errors import LoadFailed, SourceMissing
from retroact.function.declare import Function
from retroact.function.mentions import mentions
from retroact.function.registry import Registry
from retroact.replay.shelf import Shelf
from retroact.retroaction.difference import RowDifference, rows_known_to_differ, rows_that_differ, touched_by
from retroact.retroaction.dirty import Alarm, Dirty, Row, RowKey
from retroact.trace.codec import decode_json
from retroact.trace.record import Change, Record, Run, Statement, Verb

#: The beginning of stored changes that are not only rows (see relation.py).
_SCHEMA_MARK = "[[0,"
#: Written by every statement that numbers rows by AUTOINCREMENT.
_SEQUENCES = "sqlite_sequence"


class Cutoff:
    """Keeps what differs on one branch, and says of each recorded transaction whether that could reach it."""

    def __init__(self, scan: Scan, code: Unchanged) -> None:
        self.dirty = Dirty()
        self.code = code
        self._scan = scan
        #: By number of the SQL text: what asks whether it reaches something that differs, in each table in which anything does.
        self._alarms: dict[int, tuple[Alarm, ...]] = {}
        self._turns = 0
        #: What was changed where something was executed or checked, then and now.
        self._made: list[tuple[Change, ...]] = []

    def reaches(self, entry: Entry, branch: Branch) -> bool:
        """Whether what differs could have changed what a transaction read, or where it wrote."""
        dirty = self.dirty
        if dirty.everything:
            return True
        if not dirty.tables or entry.statements is None:
            return False
        alarms = self._alarms
        if dirty.turns != self._turns:
            alarms.clear()
            self._turns = dirty.turns
        for statement in decode_json(entry.statements):
            number = statement[0]
            if number not in alarms:
                alarms[number] = self._alarm(number, branch)
            for reached in alarms[number]:
                if reached(statement[1]):
                    return True
        return False

    def _alarm(self, number: int, branch: Branch) -> tuple[Alarm, ...]:
        footprint = branch.footprint(self._scan.texts[number])
        if footprint.opaque:
            return (lambda _: True,)
        tables = self.dirty.tables
        return tuple(tables[access.table].alarm(access) for access in footprint.accesses if access.table in tables)

    def answers_alike(self, statements: Iterable[Statement], branch: Branch) -> bool:
        """Whether statements find on the branch what they found in the past."""
        return not any(self.dirty.reached_by(branch.footprint(s.sql), s.parameters) for s in statements)

    def note(self, record: Record | None, changes: tuple[Change, ...], statements: Sequence[Statement], branch: Branch) -> None:
        """The branch did this in the place of a record (None: of nothing)."""
        then = record.changes if record is not None else ()
        self._made += (then, changes)
        both = (*statements, *(record.statements if record is not None else ()))
        if is_schema(then) or is_schema(changes):
            same = record is not None and (record.statements, record.changes) == (tuple(statements), changes)
            if self.dirty or not same:
                self._absorb_unseen(both, branch)
            self._alarms.clear()
        self._absorb(then, changes, branch)
        if then != changes:
            self._absorb_numbers(both, branch)

    def rows(self, now: Branch, then: Callable[[], Branch]) -> tuple[RowDifference, ...]:
        """The rows that differ in the end. Where it is not known which these are, all that were ever changed are compared."""
        dirty = self.dirty
        spoilt = {name for name, table in dirty.tables.items() if table.whole}
        if not spoilt and not dirty.everything:
            return rows_known_to_differ({n: [(key, *pair) for key, pair in t.rows.items()] for n, t in dirty.tables.items()}, now)
        stored = (entry.changes for entry in self._scan.entries if entry.changes is not None)
        touched = touched_by_stored(stored, self._scan.relations, lambda name: dirty.everything or name in spoilt)
        for changes in self._made:
            touched_by(changes, touched)
        return rows_that_differ(then(), now, touched)

    def _absorb(self, then: tuple[Change, ...], now: tuple[Change, ...], branch: Branch) -> None:
        """The past has made some changes, the branch others (or the same): what differs now?"""
        dirty = self.dirty
        if dirty.everything:
            return
        keyed = _Keyed(branch)
        before, after = keyed.by_row(then), keyed.by_row(now)
        for table in keyed.unclear if then != now or keyed.unclear & dirty.tables.keys() else ():
            dirty.spoil(table)
        same = then == now
        for table, key in before | after:
            present = dirty.tables.get(table)
            pair = present.rows.get(key) if present is not None else None
            if same and pair is None:
                continue
            done = after.get((table, key), ())
            row = branch.row(table, key if isinstance(key, tuple) else (key,)) if pair is None else _done(pair[1], done)
            was = pair[0] if pair is not None else _undone(row, done)
            dirty.put(table, key, _done(was, before.get((table, key), ())), row)

    def _absorb_unseen(self, statements: Iterable[Statement], branch: Branch) -> None:
        """Statements changed rows that nobody saw, and otherwise than then: their tables are not known any more."""
        for statement in statements:
            footprint = branch.footprint(statement.sql)
            if footprint.opaque:
                self.dirty.everything = True
            for table in footprint.writes:
                self.dirty.spoil(table)

    def _absorb_numbers(self, statements: Iterable[Statement], branch: Branch) -> None:
        """Statements inserted otherwise than then: AUTOINCREMENT may stand elsewhere."""
        if any(_SEQUENCES in branch.footprint(statement.sql).writes for statement in statements):
            self.dirty.spoil(_SEQUENCES)


def moves_schema(entry: Entry) -> bool:
    """Whether a transaction changed more than rows."""
    return entry.changes is not None and entry.changes.startswith(_SCHEMA_MARK)


def is_schema(changes: tuple[Change, ...]) -> bool:
    """Whether more than rows was changed; that is told first."""
    return bool(changes) and changes[0].verb is Verb.SCHEMA


class _Keyed:
    """Changes by the rows that they are of."""

    def __init__(self, branch: Branch) -> None:
        self._branch = branch
        #: Tables in which a row has got another name.
        self.unclear: set[str] = set()

    def by_row(self, changes: tuple[Change, ...]) -> dict[tuple[str, RowKey], list[Change]]:
        """The changes of each row, in order."""
        found: dict[tuple[str, RowKey], list[Change]] = {}
        for change in changes:
            if change.verb is Verb.SCHEMA:
                continue
            key = self._key(change)
            if key is not None:
                found.setdefault((change.table, key), []).append(change)
        return found

    def _key(self, change: Change) -> RowKey | None:
        if change.rowid is not None:
            if change.rowid != change.rowid_after:
                self.unclear.add(change.table)
                return None
            return change.rowid
        columns = self._branch.key_columns(change.table)
        names = {tuple(row[column] for column in columns) for row in (change.before, change.after) if row is not None}
        if len(names) != 1 or not columns:
            self.unclear.add(change.table)
            return None
        return names.pop()


def _undone(row: Row | None, changes: Iterable[Change]) -> Row | None:
    for change in reversed(list(changes)):
        if change.verb is Verb.INSERT:
            row = None
        elif change.verb is Verb.DELETE:
            row = change.before
        else:
            row = {**(row or {}), **(change.before or {})}
    return row


def _done(row: Row | None, changes: Iterable[Change]) -> Row | None:
    for change in changes:
        if change.verb is Verb.INSERT:
            row = change.after
        elif change.verb is Verb.DELETE:
            row = None
        else:
            row = {**(row or {}), **(change.after or {})}
    return row


class Unchanged:
    """Which recorded functions would still do the same: their code, and that of every registered function that it mentions."""

    def __init__(self, scan: Scan, changed: Registry, shelf: Shelf) -> None:
        self._functions = scan.functions
        self._changed = changed
        self._shelf = shelf
        self._chosen: dict[int, bool] = {}
        self._others: dict[int, bool] = {}
        self._recorded: dict[str, set[str]] = {}
        for name, _, fingerprint, _ in scan.functions.values():
            self._recorded.setdefault(name, set()).add(fingerprint)

    def chosen(self, number: int) -> bool:
        """Whether the changed code has the same function."""
        found = self._chosen.get(number)
        if found is None:
            name, kind, fingerprint, code = self._functions[number]
            same = (
                name in self._changed and self._changed.get(name).kind.value == kind and self._changed.get(name).fingerprint == fingerprint
            )
            found = self._chosen[number] = same and self._leans_on_the_same(self._changed.get(name), code, {name})
        return found

    def flow(self, run: Run) -> bool:
        """Whether a run that committed is of a workflow that the changed code has as it was."""
        if run.outcome is None or not run.outcome.committed or run.function not in self._changed:
            return False
        function = self._changed.get(run.function)
        return function.kind.value == run.kind and function.fingerprint == run.fingerprint and not run.fingerprint.startswith("b:")

    def control_flow(self, number: int) -> bool:
        """Whether the changed code has the same workflow, whatever has become of what it calls."""
        name, _, fingerprint, _ = self._functions[number]
        return self.present(number) and self._changed.get(name).fingerprint == fingerprint and not fingerprint.startswith("b:")

    def present(self, number: int) -> bool:
        """Whether the changed code has a function of that name and kind."""
        name, kind, _, _ = self._functions[number]
        return kind == "sleep" or (name in self._changed and self._changed.get(name).kind.value == kind)

    def bystander(self, entry: Entry) -> bool:
        """Whether the function of a run that was not chosen is the recorded one: it is, when its source was recorded."""
        found = self._others.get(entry.function_number)
        if found is None:
            _, _, fingerprint, code = self._functions[entry.function_number]
            found = code is not None
            if not found:
                try:
                    function = self._shelf.function(entry.record)
                    found = not fingerprint.startswith("b:") and function.fingerprint == fingerprint
                    found = found and self._leans_on_the_same(function, code, {function.name})
                except (SourceMissing, LoadFailed):
                    found = True  # what cannot be run is applied as it was recorded
            self._others[entry.function_number] = found
        return found

    def _leans_on_the_same(self, function: Function[..., Any], code: str | None, seen: set[str]) -> bool:
        if function.fingerprint.startswith("b:"):
            return False
        mentioned = mentions(function.body)
        if mentioned is None:
            return False
        for name in mentioned - seen:
            seen.add(name)
            if name not in self._changed or not self._recorded_as(name, code, self._changed.get(name).fingerprint):
                return False
            if not self._leans_on_the_same(self._changed.get(name), code, seen):
                return False
        return True

    def _recorded_as(self, name: str, code: str | None, fingerprint: str) -> bool:
        known = self._recorded.get(name, set())
        beside = {row[2] for row in self._functions.values() if row[0] == name and row[3] == code}
        return (beside or known) == {fingerprint}


def touched_by_stored(stored: Iterable[str], relations: Mapping[int, Any], wanted: Callable[[str], bool]) -> dict[str, set[int | None]]:
    """The rows of some tables that stored changes are of."""
    found: dict[str, set[int | None]] = {}
    for text in stored:
        for entry in decode_json(text):
            name = relations[entry[0]].name if entry[0] else ""
            if name and wanted(name):
                found.setdefault(name, set()).update(entry[2:3] + entry[4:5])
    return found
