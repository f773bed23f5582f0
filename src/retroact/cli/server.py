"""What `retroact doctor` finds out about a Postgres database.

This module must not know how findings are shown.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from retroact.cli import opening
from retroact.cli.output import Progress
from retroact.cli.shown import count
from retroact.errors import RetroactError
from retroact.trace.record import RunState

_FACTS = """select current_setting('server_version'), current_user, current_setting('fsync'), current_setting('synchronous_commit'),
current_setting('full_page_writes'), (select value from retroact.meta where key = 'schema')"""
_SIZE = "select count(*), pg_total_relation_size('retroact.record') from retroact.record"
_STATES = "select state, count(*) from retroact.runs group by state order by state"
#: Attempts that were aborted, by function, and how long the worst took to get through.
_RETRIES = "select function, count(*), max(attempt) from retroact.attempts group by function order by count(*) desc limit 3"
#: From here on a function's attempts are in one another's way more than they get done.
_MANY = 20


def examine(url: str) -> Iterator[tuple[str, dict[str, Any]] | str]:
    """Sections with facts, and problems as text. Raises Unreachable, NoProject, NewerDatabase."""
    with opening.trace_of(url) as trace:
        version, role, fsync, commit, pages, schema = opening.ask_server(trace, _FACTS)[0]
        yield "database", {"path": trace.path, "server": version, "role": role, "schema": schema, "synchronous_commit": commit}
        if "off" in (fsync, pages) or commit in ("off", "local"):
            yield (
                f"The server acknowledges what a crash may lose (fsync {fsync}, full_page_writes {pages}, synchronous_commit {commit}): "
                "durable means what its settings say. Set them to on."
            )
        records, size = opening.ask_server(trace, _SIZE)[0]
        yield "trace", {"records": records, "bytes_per_record": round(size / records) if records else 0}
        yield "runs", {str(state): number for state, number in opening.ask_server(trace, _STATES)}
        for function, number, most in opening.ask_server(trace, _RETRIES):
            yield "retries", {function: f"{count(number, 'attempt')} aborted, at most {most} for one transaction"}
            if most >= _MANY:
                yield f"{function} was tried {most} times before it came through; the view retroact.attempts tells what was in its way."
        for run in trace.open_runs():
            if run.state is RunState.STOPPED:
                why = (run.reason or "no reason is told").rstrip(".")
                yield f"Run {run.run} of {run.function} is stopped: {why}. Then `retroact resume {run.run}`."
        yield "past", {"present": "no: past states are not kept on Postgres yet (asof, replay and retro need them)"}
        try:
            with Progress("checking the records"):
                last = trace.verify()
            yield "integrity", {"records": f"whole up to version {last}"}
        except RetroactError as error:
            yield "integrity", {"records": "damaged"}
            yield str(error)
