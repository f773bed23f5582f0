"""Where the kept past of a database begins, as its own tables say it; and the refusal of what lies beyond.

This module must not know how the past is dropped.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import apsw
import msgspec

from retroact.engine.sqlite.queries import queries
from retroact.errors import BeyondHistory
from retroact.trace.record import Verb
from retroact.trace.retention import Horizon, Limit

SQL = "compaction.sql"
_decode = msgspec.json.Decoder(Horizon).decode
_encode = msgspec.json.Encoder().encode
_BEGINNING = Horizon()


def read_horizon(database: apsw.Connection) -> Horizon:
    """The horizon; version 0 when nothing was ever dropped."""
    stored: Any = database.execute(queries(SQL)["horizon"]).get
    return _BEGINNING if stored is None else _decode(stored)


def write_horizon(database: apsw.Connection, horizon: Horizon) -> None:
    """Move the horizon. Inside a transaction."""
    database.execute(queries(SQL)["set_horizon"], (_encode(horizon).decode(),))


def beyond(horizon: Horizon, version: int, path: Path) -> BeyondHistory:
    """The refusal of a version that was dropped."""
    reason = "What is older was dropped by `retroact compact` or the App's retention; the outcomes of its runs are kept."
    return BeyondHistory(version=version, database=path, horizon=horizon, reason=reason)


def forgotten(table: str, limit: Limit, version: int, path: Path) -> BeyondHistory:
    """The refusal of a table that is forgotten earlier than the rest."""
    reason = f"That is so for the table {table}, whose rows are forgotten earlier than the rest; other tables can be asked."
    return BeyondHistory(version=version, database=path, horizon=limit, reason=reason)


def mark(relation: int) -> list[Any]:
    """What stands among the changes of a record for all that it held of a forgotten table."""
    return [relation, Verb.DROPPED, None, None]
