"""What determinism costs: the standard modules' clock and chance outside of functions, and verifying a share of the runs.

Verification is a share of the rate that callers see with it switched off; both sides record, on the same threads in turn.
"""

from __future__ import annotations

import datetime
import random
import statistics
import time
import timeit
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bench import workload
from bench.adapters.retroact import Adapter
from bench.harness import Callers, Measured, Options, below, figure
from bench.throughput import RUN
from retroact.function.given import given

_NUMBER = 100_000
_RATE = "0.01"


def substitutes(callers: int, options: Options) -> Iterator[dict[str, Any]]:
    """Nanoseconds that a call outside of any function costs more than the original."""
    calls: dict[str, Callable[[], Callable[..., Any]]] = {
        "time.time": lambda: time.time,
        "datetime.now": lambda: datetime.datetime.now,
        "random.random": lambda: random.random,
        "uuid.uuid4": lambda: uuid.uuid4,
    }
    for name, get in calls.items():
        given.restore()
        before = _nanoseconds(get(), options)
        given.install()
        after = _nanoseconds(get(), options)
        more = round(after - before, 1)
        goal = below(100, "more_ns", "ns")
        yield figure(f"given.{name}", callers, round(after, 1), round(before, 1), goal, unit="ns", more_ns=more, less_is_better=True)


def verify(callers: int, options: Options) -> Iterator[dict[str, Any]]:
    """The rate with one run in a hundred verified, against the rate without."""
    rates: dict[str, list[float]] = {_RATE: [], "0": []}
    verified: list[int] = []
    threads = Callers(callers)
    try:
        with options.workspace() as folder:
            for number in range(options.rounds + 1):
                for rate, found in rates.items():
                    done = _side(Path(folder) / f"{number}-{rate}.db", rate, threads, options.seconds)
                    if number:
                        found.append(done[0])
                        verified += [done[1]] if rate == _RATE else []
    finally:
        threads.close()
    ours, limit = (round(statistics.median(rates[rate]), 1) for rate in (_RATE, "0"))
    overhead = round(100 * (limit / ours - 1), 1)
    checked = round(statistics.median(verified))
    goal = below(5, "overhead_percent", "%")
    yield figure("verify", callers, ours, limit, goal, unit="calls/s", overhead_percent=overhead, verified_a_round=checked)


def _nanoseconds(call: Callable[..., Any], options: Options) -> float:
    return min(timeit.repeat(call, number=_NUMBER, repeat=options.rounds)) / _NUMBER * 1e9


def _side(path: Path, rate: str, threads: Callers, seconds: float) -> tuple[float, int]:
    workload.create(path)
    adapter = Adapter(f"sqlite:///{path}", threads.count, verify_rate=rate)
    adapter.setup()
    chance = [random.Random(7 + k) for k in range(threads.count)]
    measured = Measured()
    threads.loop(lambda k, i: adapter.run_tx(f"{RUN}-{k}-{i}", "bump", chance[k].randint(1, workload.ACCOUNTS)), seconds, measured)
    checked = adapter.app.verifications.checked
    adapter.close()
    return measured.rates[0], checked
