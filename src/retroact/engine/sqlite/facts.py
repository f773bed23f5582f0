"""What is known of a schema: how its rows are addressed, and whether it has rules of its own. The same for every state that has it.

This module must not know what is done with rows.
"""

from __future__ import annotations

import dataclasses

import apsw


@dataclasses.dataclass(frozen=True, slots=True)
class TableFacts:
    """How rows of one table are addressed and written."""

    columns: tuple[str, ...]
    key: tuple[str, ...]
    rowid: str | None
    #: No two rows have anything to do with one another.
    independent: bool
    #: Its numbers are kept in a table of their own (AUTOINCREMENT).
    numbered: bool


@dataclasses.dataclass(slots=True)
class Facts:
    """What is known of a schema: found out when it is needed, and the same for every state that has this schema."""

    tables: dict[str, TableFacts] = dataclasses.field(default_factory=dict[str, TableFacts])
    #: Whether there are triggers or foreign keys.
    has_rules: bool | None = None


class Schemas:
    """The schemas that the states of one database had, by SQLite's own number of them."""

    def __init__(self) -> None:
        self._facts: dict[int, Facts] = {}

    def of(self, database: apsw.Connection) -> Facts:
        """What is known of the schema of a state on which nothing was changed yet."""
        return self._facts.setdefault(int(database.pragma("schema_version")), Facts())
