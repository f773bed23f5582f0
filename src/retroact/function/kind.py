"""What a function is to the platform: one of four kinds; and what a transaction is kept apart from.

This module must not know functions.
"""

from __future__ import annotations

import enum


class Kind(enum.Enum):
    """What a function is to the platform."""

    TRANSACTION = "transaction"
    STEP = "step"
    WORKFLOW = "workflow"
    INVARIANT = "invariant"


class Isolation(enum.StrEnum):
    """What a transaction is kept apart from. SQLite is always serializable, which is more than the others ask for."""

    SERIALIZABLE = "serializable"
    #: A snapshot: what it read does not change, but two transactions may each decide on what the other is about to change.
    REPEATABLE_READ = "repeatable read"
    #: Each statement sees what was committed by then: what it read cannot be rebuilt, so replay can only take it from the record.
    READ_COMMITTED = "read committed"


#: Kinds whose body is given a connection as its first argument.
CONNECTED = frozenset({Kind.TRANSACTION, Kind.INVARIANT})
