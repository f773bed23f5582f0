"""What a sampled second execution of committed transactions has found.

Values only. This module must not know how a transaction is executed again, nor where the findings are kept.
"""

from __future__ import annotations

import msgspec

from retroact.trace.record import RunId, Version


class Verification(msgspec.Struct, frozen=True, kw_only=True):
    """A transaction that did something else when it was executed again."""

    version: Version
    run: RunId
    function: str
    #: Number of the statement at which it parted from its record, from 1; None when it was its changes or its outcome.
    statement: int | None
    #: Let, then, because; and what is suspected, with the remedy.
    explanation: str
    verified_us: int


class Verified(msgspec.Struct, frozen=True, kw_only=True):
    """How far verification has come, over all processes that had it switched on."""

    #: Up to this version everything that was sampled has been executed again, or left out.
    until: Version = Version(0)
    #: Transactions that were executed again.
    checked: int = 0
    #: Sampled, and not executed again: their code is not at hand, or there was no time for so many.
    left_out: int = 0
    #: Those that did something else, newest first.
    diverged: tuple[Verification, ...] = ()
