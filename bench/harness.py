"""Closed loops in interleaved rounds, percentiles, and figures with what was asked of them.

A round lets each system work for the same time, one after the other on the same threads: what disturbs the machine disturbs all.
The first round warms up and is thrown away. A rate is the median over the rounds, a percentile is over all calls of all rounds.
"""

from __future__ import annotations

import dataclasses
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

#: One call by caller `k`, its `i`th.
Call = Callable[[int, int], object]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """How to measure."""

    engine: str = "sqlite"
    seconds: float = 2.0
    rounds: int = 5
    commits: int = 100_000
    folder: Path | None = None

    def workspace(self) -> tempfile.TemporaryDirectory[str]:
        """A fresh folder for the databases of one benchmark."""
        return tempfile.TemporaryDirectory(prefix="retroact-bench-", dir=self.folder)


@dataclasses.dataclass(frozen=True)
class Goal:
    """What was asked for: a bound on one value of a figure."""

    text: str
    value: str
    bound: float
    more_is_better: bool

    def met(self, figure: Mapping[str, Any]) -> bool | None:
        """Whether the figure is as was asked; None when it could not be measured."""
        found = figure.get(self.value)
        if found is None:
            return None
        return found >= self.bound if self.more_is_better else found < self.bound


def at_least(bound: float, value: str = "ratio", unit: str = "x") -> Goal:
    """The value is at least so much."""
    return Goal(f">= {bound:g} {unit}", value, bound, more_is_better=True)


def below(bound: float, value: str, unit: str) -> Goal:
    """The value is less than so much."""
    return Goal(f"< {bound:g} {unit}", value, bound, more_is_better=False)


def at_most(bound: int, value: str, unit: str) -> Goal:
    """The value, a whole number, is at most so much."""
    return Goal(f"<= {bound} {unit}", value, bound + 0.5, more_is_better=False)


def figure(
    name: str,
    callers: int,
    ours: float | None,
    limit: float | None,
    goal: Goal | None = None,
    /,
    *,
    less_is_better: bool = False,
    **more: Any,
) -> dict[str, Any]:
    """One line of output. `ratio` says how many times as fast as the limit we are, whatever the unit."""
    pair = (limit, ours) if less_is_better else (ours, limit)
    ratio = round(pair[0] / pair[1], 3) if pair[0] is not None and pair[1] else None
    found: dict[str, Any] = {
        "name": name,
        "engine": "sqlite",
        "callers": callers,
        "ours": ours,
        "limit": limit,
        "ratio": ratio,
        **more,
    }
    found["asked"] = goal.text if goal else None
    found["met"] = goal.met(found) if goal else None
    return found


@dataclasses.dataclass
class Measured:
    """What one system did."""

    rates: list[float] = dataclasses.field(default_factory=list)
    latencies: list[float] = dataclasses.field(default_factory=list)
    #: Calls that returned, those of the warm-up and the tail of each round included.
    completed: int = 0

    @property
    def rate(self) -> float:
        """Calls per second: the median over the rounds."""
        return round(statistics.median(self.rates), 1)

    def ms(self, share: float) -> float | None:
        """A percentile of the latencies in milliseconds."""
        return milliseconds(percentile(self.latencies, share))


class Callers:
    """Threads that call as fast as they can. They stay the same in all rounds: a system may keep a connection for each."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._pool = ThreadPoolExecutor(count)
        self._calls: dict[tuple[int, int], int] = {}

    def loop(self, call: Call, seconds: float, measured: Measured, *, keep: bool = True) -> None:
        """One system's share of a round. Calls that end inside the time count. Raises what a call raises."""
        together = threading.Barrier(self.count)

        def body(k: int) -> list[float]:
            clock = time.perf_counter
            first = i = self._calls.get((id(measured), k), 0)
            latencies: list[float] = []
            together.wait()
            end = clock() + seconds
            began = clock()
            while began < end:
                call(k, i)
                i += 1
                ended = clock()
                if ended < end:
                    latencies.append(ended - began)
                began = ended
            self._calls[id(measured), k] = i
            self._done[k] = i - first
            return latencies

        self._done = dict.fromkeys(range(self.count), 0)
        found = [future.result() for future in [self._pool.submit(body, k) for k in range(self.count)]]
        measured.completed += sum(self._done.values())
        if keep:
            measured.rates.append(sum(map(len, found)) / seconds)
            for latencies in found:
                measured.latencies += latencies

    def close(self) -> None:
        """Let the threads go."""
        self._pool.shutdown()


def interleave(systems: Mapping[str, Call], callers: int, options: Options) -> dict[str, Measured]:
    """Rounds of all systems in turn, each system with the same callers for the same time."""
    measured = {name: Measured() for name in systems}
    threads = Callers(callers)
    try:
        for number in range(options.rounds + 1):
            for name, call in systems.items():
                warming = number == 0
                threads.loop(call, options.seconds / 2 if warming else options.seconds, measured[name], keep=not warming)
    finally:
        threads.close()
    return measured


def percentile(values: list[float], share: float) -> float | None:
    """The value below which that share of the values lies."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else None


def milliseconds(seconds: float | None) -> float | None:
    """Seconds as milliseconds, to the microsecond."""
    return None if seconds is None else round(seconds * 1000, 3)


def fsync_ms(folder: Path) -> float:
    """What making 4 KiB durable costs in a folder: where this is next to nothing, durability is not being measured."""
    path = folder / "fsync"
    times = []
    with path.open("wb", buffering=0) as file:
        for _ in range(50):
            file.write(bytes(4096))
            began = time.perf_counter()
            os.fsync(file.fileno())
            times.append(time.perf_counter() - began)
    path.unlink()
    return round(statistics.median(times) * 1000, 3)
