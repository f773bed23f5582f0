"""What a function is to the platform: one of four kinds.

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


#: Kinds whose body is given a connection as its first argument.
CONNECTED = frozenset({Kind.TRANSACTION, Kind.INVARIANT})
