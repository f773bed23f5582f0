"""The past: how fast any commit of it is opened, and how fast it is replayed."""

from __future__ import annotations

import importlib
import random
import sqlite3
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench import workload
from bench.adapters.retroact import Adapter
from bench.harness import Callers, Measured, Options, at_least, below, figure, milliseconds, percentile
from bench.throughput import RUN

SAMPLES = 500
READ = "select bal from acct where id = 1"


def open_past(callers: int, options: Options) -> Iterator[dict[str, Any]]:
    """Open one of many past commits and read a row; the limit opens the present with sqlite3 and reads it there."""
    goal = below(1, "ours", "ms")
    history_of = _found("retroact.engine.sqlite.history", "History")
    if history_of is None:
        yield figure("open", callers, None, None, goal, unit="p50 ms", note="not yet: there is no History to open")
        return
    with options.workspace() as folder:
        path = Path(folder) / "past.db"
        last = _commits(path, options.commits)
        history = history_of(path)
        chance = random.Random(7)
        ours: list[float] = []
        limit: list[float] = []
        for number in range(SAMPLES + 20):
            version = chance.randint(1, last)
            taken = _open_one(history, version), _open_present(path)
            if number >= 20:
                ours.append(taken[0])
                limit.append(taken[1])
        history.close()
    more = {
        "p99_ms": milliseconds(percentile(ours, 0.99)),
        "limit_p99_ms": milliseconds(percentile(limit, 0.99)),
        "commits": last,
    }
    pair = milliseconds(percentile(ours, 0.5)), milliseconds(percentile(limit, 0.5))
    yield figure("open", callers, *pair, goal, less_is_better=True, unit="p50 ms", **more)


def _commits(path: Path, count: int) -> int:
    """A database with so many commits of one transaction each, all of row 1. Made without syncs: making it is not measured."""
    workload.create(path)
    adapter = Adapter(f"sqlite:///{path}")
    adapter.setup()
    adapter.app.engine._database.pragma("synchronous", "off")
    for i in range(count):
        adapter.run_tx(f"{RUN}-0-{i}", "bump", 1)
    adapter.close()
    last, versions = workload.ask(path, "select max(version), count(*) from retroact_record")
    assert last == versions == count, "every transaction has its version"
    return last


def _open_one(history: Any, version: int) -> float:
    began = time.perf_counter()
    branch = history.at(version)
    _, rows = branch.query(READ)
    branch.close()
    taken = time.perf_counter() - began
    assert rows[0][0] == workload.BALANCE + version, f"version {version} shows {rows}"
    return taken


def _open_present(path: Path) -> float:
    began = time.perf_counter()
    database = sqlite3.connect(path)
    database.execute(READ).fetchone()
    database.close()
    return time.perf_counter() - began


def replay(callers: int, options: Options) -> Iterator[dict[str, Any]]:
    """Replay everything that concurrent callers did, against how long it took them: a fresh trace in each round."""
    goal = at_least(1)
    parts = [_found("retroact.engine.sqlite.history", "History"), _found("retroact.replay.replayer", "Replayer")]
    parts.append(_found("retroact.replay.shelf", "Shelf"))
    if None in parts:
        yield figure("replay", callers, None, None, goal, unit="tx/s", note="not yet: there is nothing that replays")
        return
    ours: list[float] = []
    limit: list[float] = []
    verdicts: dict[str, int] = {}
    for number in range(options.rounds + 1):
        with options.workspace() as folder:
            path = Path(folder) / "trace.db"
            rate = _original(path, callers, options.seconds / (1 if number else 2))
            report, again = _replay_all(path, *parts)
            if number:
                limit.append(rate)
                ours.append(again)
            for one in report.transactions:
                verdicts[one.verdict.value] = verdicts.get(one.verdict.value, 0) + 1
    diverged = sum(verdicts.values()) - verdicts.get("identical", 0) - verdicts.get("order-only", 0)
    more = {"diverged": diverged, "verdicts": verdicts, "rounds": [round(r) for r in ours], "limit_rounds": [round(r) for r in limit]}
    pair = round(statistics.median(ours), 1), round(statistics.median(limit), 1)
    yield figure("replay", callers, *pair, goal, unit="tx/s", **more)


def _original(path: Path, callers: int, seconds: float) -> float:
    """Transactions a second while the trace is made."""
    workload.create(path)
    adapter = Adapter(f"sqlite:///{path}", callers)
    adapter.setup()
    chance = [random.Random(7 + k) for k in range(callers)]
    measured = Measured()
    threads = Callers(callers)
    try:
        threads.loop(lambda k, i: adapter.run_tx(f"{RUN}-{k}-{i}", "bump", chance[k].randint(1, workload.ACCOUNTS)), seconds, measured)
    finally:
        threads.close()
        adapter.close()
    return measured.rates[0]


def _replay_all(path: Path, history_of: Any, replayer_of: Any, shelf_of: Any) -> tuple[Any, float]:
    """The report, and transactions replayed a second: opening the past, loading the code and reading the trace included."""
    began = time.perf_counter()
    history = history_of(path)
    try:
        records = list(history.trace.records_between(0, history.trace.last_version()))
        report = replayer_of(history, shelf_of(history.trace)).replay(records)
    finally:
        history.close()
    return report, len(report.transactions) / (time.perf_counter() - began)


def _found(module: str, name: str) -> Any:
    """Something that may not be built yet."""
    try:
        return getattr(importlib.import_module(module), name, None)
    except ImportError:
        return None
