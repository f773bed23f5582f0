"""How fast a database grows by what is recorded, and how long that can go on: the figures of `retroact doctor`.

This module must not know how they are shown.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from retroact.cli import opening
from retroact.trace.retention import Retention

#: "Lately" is the last so many records, and not longer ago than a day before the newest.
_LATELY = 5000
_DAY_US = 86_400 * 10**6
#: Of less time than this no rate is told.
_LEAST_US = 10 * 10**6
#: What a record takes besides its details: its row, its link, its place in the guard's index.
_ROW_BYTES = 75
#: A young page log is mostly the first images of its pages, which are not logged again.
_LEAST_VERSIONS = 500

_RECENT = """
select count(*), min(began_us), max(began_us), coalesce(sum(length(coalesce(statements, '')) + length(coalesce(changes, ''))
  + length(arguments) + length(run) * 2 + length(coalesce(value, '')) + length(coalesce(failure, ''))), 0)
from (select * from retroact_record order by version desc limit ?1)
where began_us >= (select max(began_us) - ?2 from retroact_record)
"""


def growth(path: Path, retention: Retention | None) -> dict[str, Any]:
    """Facts by name: bytes now, bytes for each transaction lately, bytes a day at the present rate, days until the limit."""
    side = path.with_name(path.name + "-pages")
    count, first_us, last_us, bytes_ = opening.ask(path, _RECENT, (_LATELY, _DAY_US))[0]
    facts: dict[str, Any] = {"database_bytes": path.stat().st_size, "page_log_bytes": side.stat().st_size if side.exists() else 0}
    if not count:
        return facts
    each = bytes_ / count + _ROW_BYTES
    log_each = 0.0
    log_bytes = 0
    if side.exists():
        with opening.home_of(path) as history:
            first, last = history.pages.horizon.version, history.pages.last_commit.version
            log_bytes = history.pages.used_bytes()
            log_each = log_bytes / max(last - first, _LEAST_VERSIONS)
    facts |= {"trace_bytes_per_transaction": round(each), "page_log_bytes_per_transaction": round(log_each)}
    span_us = last_us - first_us
    if span_us < _LEAST_US:
        facts["rate"] = "too little time has passed to tell"
        return facts
    daily = count / span_us * _DAY_US
    facts["transactions_a_day"] = round(daily)
    facts["growth_a_day_bytes"] = round(daily * (each + log_each))
    limit = retention.size_bytes if retention is not None else None
    if limit is not None:
        present = log_bytes + opening.details_size(path)
        facts["limit_bytes"] = limit
        facts["days_until_the_limit"] = round(max(limit - present, 0) / max(daily * (each + log_each), 1), 1)
    return facts
