"""Where the kept past of a database begins, as its own tables say it; and the refusal of what lies beyond.

This module must not know how the past is dropped.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import apsw
import msgspec

from retroact.engine.sqlite.queries import fetch, queries
from retroact.errors import BeyondHistory
from retroact.trace.codec import decode_json
from retroact.trace.record import Verb
from retroact.trace.retention import Horizon, Limit

SQL = "compaction.sql"
REASON = "What is older was dropped by `retroact compact` or the App's retention; the outcomes of its runs are kept."
_decode = msgspec.json.Decoder(Horizon).decode
_encode = msgspec.json.Encoder().encode
_BEGINNING = Horizon()
#: Of so many records the size is taken exactly.
_SAMPLE = 20_000


def read_horizon(database: apsw.Connection) -> Horizon:
    """The horizon; version 0 when nothing was ever dropped."""
    stored: Any = database.execute(queries(SQL)["horizon"]).get
    return _BEGINNING if stored is None else _decode(stored)


def write_horizon(database: apsw.Connection, horizon: Horizon) -> None:
    """Move the horizon. Inside a transaction."""
    database.execute(queries(SQL)["set_horizon"], (_encode(horizon).decode(),))


def beyond(horizon: Horizon, version: int, path: Path) -> BeyondHistory:
    """The refusal of a version that was dropped."""
    return BeyondHistory(version=version, database=path, horizon=horizon, reason=REASON)


def forgotten(table: str, limit: Limit, version: int, path: Path) -> BeyondHistory:
    """The refusal of a table that is forgotten earlier than the rest."""
    reason = f"That is so for the table {table}, whose rows are forgotten earlier than the rest; other tables can be asked."
    return BeyondHistory(version=version, database=path, horizon=limit, reason=reason)


def details_weight(database: apsw.Connection, after: int, until: int) -> int:
    """About how many bytes the details of the records between two versions take: what the newest do, as many times as there are more."""
    parameters = {"after": after, "until": until, "sample": _SAMPLE}
    count, weight, first = fetch(database, queries(SQL)["weights"], parameters)[0]
    more = first - after - 1 if count == _SAMPLE else 0
    return int(weight + more * weight / max(count, 1))


def mark(relation: int) -> list[Any]:
    """What stands among the changes of a record for all that it held of a forgotten table."""
    return [relation, Verb.DROPPED, None, None]


def is_marked(stored: str | None) -> bool:
    """Whether among stored changes stands such a mark."""
    return stored is not None and any(entry[1] == Verb.DROPPED for entry in decode_json(stored))
