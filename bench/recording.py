"""What recording costs: the rate with the page log against the rate without, and the bytes that a small transaction leaves.

A side's time includes closing the database: what recording has put off until then is paid for.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw

from bench import workload
from bench.adapters.retroact import Adapter
from bench.harness import Callers, Measured, Options, at_most, below, figure
from bench.throughput import RUN

TRACE = "select sum(pgsize) from dbstat where name in ('retroact_record', 'retroact_record_guard') and aggregate = true"


def recording(callers: int, options: Options) -> Iterator[dict[str, Any]]:
    """Three figures: time, bytes of the trace, bytes of the page log."""
    rates: dict[str, list[float]] = {"1": [], "0": []}
    trace: list[float] = []
    pages: list[float] = []
    counts: list[float] = []
    threads = Callers(callers)
    try:
        with options.workspace() as folder:
            for number in range(options.rounds + 1):
                for on in ("1", "0"):
                    path = Path(folder) / f"{number}-{on}.db"
                    rate, count = _side(path, on, threads, options.seconds / (1 if number else 2))
                    if number:
                        rates[on].append(rate)
                    if number and on == "1":
                        counts.append(count)
                        trace.append(_trace_bytes(path) / count)
                        side_file = path.with_name(path.name + "-pages")
                        pages += [side_file.stat().st_size / count] if side_file.exists() else []
    finally:
        threads.close()
    ours, limit = (round(statistics.median(rates[on]), 1) for on in ("1", "0"))
    overhead = round(100 * (limit / ours - 1), 1)
    more = {"rounds": [round(r) for r in rates["1"]], "limit_rounds": [round(r) for r in rates["0"]]}
    yield figure("recording", callers, ours, limit, below(15, "overhead_percent", "%"), unit="calls/s", overhead_percent=overhead, **more)
    yield figure(
        "recording.trace",
        callers,
        _median(trace),
        None,
        at_most(400, "ours", "bytes"),
        unit="bytes/tx",
        transactions=_median(counts),
    )
    yield figure(
        "recording.pages",
        callers,
        _median(pages),
        None,
        at_most(200, "ours", "bytes"),
        unit="bytes/tx",
        transactions=_median(counts),
    )


def _side(path: Path, on: str, threads: Callers, seconds: float) -> tuple[float, int]:
    workload.create(path)
    adapter = Adapter(f"sqlite:///{path}", threads.count, recording=on)
    adapter.setup()
    chance = [random.Random(7 + k) for k in range(threads.count)]
    measured = Measured()
    began = time.perf_counter()
    threads.loop(lambda k, i: adapter.run_tx(f"{RUN}-{k}-{i}", "bump", chance[k].randint(1, workload.ACCOUNTS)), seconds, measured)
    adapter.close()
    return measured.completed / (time.perf_counter() - began), measured.completed


def _trace_bytes(path: Path) -> int:
    database = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
    try:
        return database.execute(TRACE).get
    finally:
        database.close()


def _median(values: list[float]) -> int | None:
    return round(statistics.median(values)) if values else None
