"""What a SQL text is for Postgres, found out once by reading it: its parameters, how it is sent, and whether a body may run it.

This module must not know when, or how often, a statement is run.
"""

from __future__ import annotations

import dataclasses

from retroact.engine.postgres.scan import Scanned, scan
from retroact.errors import BadStatement

_UNIT = "the platform begins and commits the transaction; leave BEGIN, COMMIT and ROLLBACK out and raise to roll back"
_SAVEPOINT = "a transaction is one unit; call another @transaction instead of SAVEPOINT"
_SESSION = "it changes the connection, not the data; a setting belongs to the role or the database (alter role ... set ...)"
_PREPARED = "the platform prepares statements by itself; run the statement"
#: First words of what a body may not run, with the reason.
_FORBIDDEN = {
    **dict.fromkeys(("begin", "start", "commit", "end", "rollback", "abort"), _UNIT),
    **dict.fromkeys(("savepoint", "release"), _SAVEPOINT),
    **dict.fromkeys(("set", "reset", "discard", "load"), _SESSION),
    **dict.fromkeys(("prepare", "execute", "deallocate"), _PREPARED),
    **dict.fromkeys(("declare", "fetch", "move", "close"), "a cursor outlives its statement and is in no record; read the rows at once"),
    **dict.fromkeys(("listen", "unlisten"), "it changes the connection, which other transactions use too"),
    "copy": "COPY reads and writes files or streams; use insert and select",
    "truncate": "TRUNCATE hides rows from transactions that began before it; use `delete from`",
    "vacuum": "VACUUM cannot run inside a transaction",
}
#: What Postgres prepares and can give parameters to; everything else is sent as text.
_PREPARABLE = frozenset({"select", "insert", "update", "delete", "merge", "values", "table", "with"})
_CHANGING = frozenset(
    {"insert", "update", "delete", "merge", "create", "alter", "drop", "truncate", "grant", "revoke", "comment", "lock", "do", "call"}
)
_TEMPORARY = frozenset({"temp", "temporary", "pg_temp"})
#: Words whose answer is not in the database: replay must take it from the record.
_VOLATILE = frozenset(
    {"now", "current_timestamp", "current_date", "current_time", "localtimestamp", "localtime", "clock_timestamp", "timeofday",
     "statement_timestamp", "transaction_timestamp", "random", "gen_random_uuid", "uuidv4", "uuidv7", "nextval", "setseed", "nowait",
     "skip", "txid_current", "pg_current_xact_id", "pg_backend_pid", "pg_try_advisory_lock", "pg_try_advisory_xact_lock"}
)  # fmt: skip


@dataclasses.dataclass(frozen=True, slots=True)
class Shape:
    """One SQL text, understood."""

    number: int
    sql: str
    scanned: Scanned
    #: The text with $1, $2, ..., and the parameters that they stand for; None when it cannot be prepared.
    numbered: str | None
    names: tuple[str, ...]
    volatile: tuple[str, ...]
    empty: bool


def understand(sql: str, function: str, statement: int) -> Shape:
    """Read a text. Its number is 0 until it is stored. Raises BadStatement when a body may not run it."""
    scanned = scan(sql)
    problem = scanned.problem or _refusal(scanned)
    if problem is not None:
        raise BadStatement(function=function, statement=statement, problem=problem, sql=sql)
    words = scanned.words
    numbered, names = scanned.numbered()
    first = words[0] if words else ""
    preparable = first in _PREPARABLE and not (first in ("select", "with") and "into" in words and "insert" not in words)
    return Shape(
        number=0,
        sql=sql,
        scanned=scanned,
        numbered=numbered if preparable else None,
        names=names,
        volatile=tuple(sorted(_VOLATILE.intersection(words))),
        empty=not words and not "".join(scanned.pieces).strip(),
    )


def _refusal(scanned: Scanned) -> str | None:
    """Why a body may not run this, if so."""
    words = scanned.words
    if scanned.more:
        return "one call runs one statement; give the others calls of their own"
    if not words or words[0] in _FORBIDDEN:
        return _FORBIDDEN[words[0]] if words else None
    if "set_config" in words:
        return _SESSION
    if "retroact" in words and not _CHANGING.isdisjoint(words):
        return "the schema retroact belongs to the trace, which nobody edits"
    if (words[0] == "create" or "into" in words or "pg_temp" in words) and not _TEMPORARY.isdisjoint(words[:4] + _after_into(words)):
        return "what is TEMP outlives the transaction on its connection and is in no record; use a table, or a common table expression"
    return None


def _after_into(words: tuple[str, ...]) -> tuple[str, ...]:
    if "into" not in words:
        return ("pg_temp",) if "pg_temp" in words else ()
    at = words.index("into")
    return words[at + 1 : at + 2]
