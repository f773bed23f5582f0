"""Keeps what verification has found, where every process that opens the database finds it.

This module must not know how a transaction is verified.
"""

from __future__ import annotations

from collections.abc import Sequence

import apsw
import msgspec

from retroact.engine.sqlite.queries import fetch, queries
from retroact.trace.record import Version
from retroact.trace.verification import Verification, Verified

#: Divergences that are kept; older ones say nothing more.
KEPT = 1000


def keep(database: apsw.Connection, verified: Verified, found: Sequence[Verification]) -> None:
    """Store the counts, and what was found since they were stored last. Inside a transaction."""
    sql = queries()
    counts = {"until": verified.until, "checked": verified.checked, "left_out": verified.left_out}
    database.execute(sql["keep_verified"], (msgspec.json.encode(counts).decode(),))
    for each in found:
        row = (each.version, each.run, each.function, each.statement, each.explanation, each.verified_us)
        database.execute(sql["insert_verification"], row)
    if found:
        database.execute(sql["forget_verifications"], (KEPT,))


def kept(database: apsw.Connection) -> Verified | None:
    """What is stored; None when nothing was ever verified."""
    if not database.table_exists("main", "retroact_verification"):
        return None
    sql = queries()
    counts = fetch(database, sql["verified"])
    if not counts:
        return None
    rows = fetch(database, sql["verifications"])
    found = (Verification(version=Version(v), run=r, function=f, statement=s, explanation=e, verified_us=t) for v, r, f, s, e, t in rows)
    return Verified(**msgspec.json.decode(counts[0][0]), diverged=tuple(found))
