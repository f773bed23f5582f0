"""The four phases of every transaction: execute, order, validate, persist.

Whatever a transactional system is called, it runs a body, chooses the body's place among the others, checks that this place is
allowed, and makes the result last. Systems differ only in how these four are arranged, which `ordering` writes down.

This module must not know any system, any engine or any clock.
"""

from __future__ import annotations

import enum


class Phase(enum.Enum):
    """One of the four phases. The order of the members is the order in which concurrent phases are written."""

    EXECUTE = "Execute"
    """Run the body; the values it reads and the changes it wants become known."""
    ORDER = "Order"
    """Choose the transaction's place among all others."""
    VALIDATE = "Validate"
    """Check that the body's reads and writes are allowed at that place."""
    PERSIST = "Persist"
    """Make the result last."""

    def __str__(self) -> str:
        return self.value
