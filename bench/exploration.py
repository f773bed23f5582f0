"""Exploration: how many schedules of the demo's orders are run a second.

Every interleaving is run, equivalent ones too, so that both systems run the same. The limit copies the database for each of them and
executes the statements of the bodies, without Python functions, records or invariants.
"""

from __future__ import annotations

import contextlib
import itertools
import sqlite3
import statistics
import time
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

from bench.harness import Options, at_least, figure
from retroact.app import App
from retroact.function.code import load_path
from retroact.retroaction import exploration

GOAL = at_least(2000, "ours", "schedules/s")
SETUP = (
    "create table inventory (item text primary key, available integer not null)",
    "create table orders (id text primary key, item text not null, quantity integer not null, payment text not null)",
    "insert into inventory values ('espresso', 1), ('grinder', 3)",
)
CHECK = "select available from inventory where item = 'espresso'"
UPDATE = "update inventory set available = available - 1 where item = 'espresso'"
FULFIL = "insert into orders values (?, 'espresso', 1, 'paid')"
LOOK = "select min(available) from inventory"


def explore(callers: int, options: Options) -> Iterator[dict[str, Any]]:
    """`callers` orders of the last item, recorded one after the other: all their schedules."""
    ours: list[float] = []
    reduced: list[float] = []
    limit: list[float] = []
    with options.workspace() as folder, _recorded(Path(folder), callers) as (app, runs):
        every = exploration.Options(preemptions=None, reduce=False, schedules=10**9, seconds=options.seconds * 10, steps=_STEPS)
        some = exploration.Options(preemptions=None, steps=_STEPS)
        for number in range(options.rounds + 1):
            found, best = app.explore(runs, options=every), app.explore(runs, options=some)
            schedules, violating, seconds = _by_hand(callers)
            assert (found.explored, found.violating) == (schedules, violating), "both run all schedules, and find the same"
            if number:
                ours.append(found.explored / found.seconds)
                reduced.append(best.seconds)
                limit.append(schedules / seconds)
    more = {
        "schedules": found.explored,
        "violating": found.violating,
        "inequivalent": best.explored,
        "all_seconds": round(found.seconds, 4),
        "inequivalent_seconds": round(statistics.median(reduced), 4),
        "executed": best.executed,
    }
    pair = round(statistics.median(ours), 1), round(statistics.median(limit), 1)
    yield figure("explore", callers, *pair, GOAL, unit="schedules/s", **more)


_STEPS = {"process_payment": exploration.StepPolicy(exploration.Unrecorded.MOCK)}


@contextlib.contextmanager
def _recorded(folder: Path, callers: int) -> Iterator[tuple[App, list[str]]]:
    template = resources.files("retroact.cli").joinpath("templates").joinpath("shop.py.template")
    (folder / "shop.py").write_text(template.read_text())
    shop = load_path(folder / "shop.py")
    with App(folder / "shop.db", shop) as app:
        app.run("open_shop", {"espresso": 1, "grinder": 3})
        runs = [f"order-{number}" for number in range(callers)]
        for run in runs:
            with contextlib.suppress(shop.OutOfStock):
                app.run("checkout", shop.Order(run, "espresso"), run=run)
        yield app, runs


def _by_hand(orders: int) -> tuple[int, int, float]:
    """Schedules, those in which the item is oversold, and the seconds that all took."""
    original = sqlite3.connect(":memory:", isolation_level=None)
    for sql in SETUP:
        original.execute(sql)
    began = time.perf_counter()
    schedules = violating = 0
    waiting: list[tuple[int, ...]] = [()]
    while waiting:
        prefix = waiting.pop()
        database = sqlite3.connect(":memory:", isolation_level=None)
        original.backup(database)
        places, oversold = _play(database, prefix, orders)
        for place in itertools.count():
            ready = [order for order in range(orders) if places[order] >= 0]
            if not ready:
                break
            # The first goes on here; each of the others begins a schedule of its own.
            waiting += [(*prefix, order) for order in ready[1:]]
            prefix = (*prefix, ready[0])
            oversold |= _turn(database, places, ready[0])
            assert place < 9 * orders
        schedules += 1
        violating += oversold
        database.close()
    return schedules, violating, time.perf_counter() - began


def _play(database: sqlite3.Connection, turns: tuple[int, ...], orders: int) -> tuple[list[int], bool]:
    places, oversold = [0] * orders, False
    for order in turns:
        oversold |= _turn(database, places, order)
    return places, oversold


def _turn(database: sqlite3.Connection, places: list[int], order: int) -> bool:
    """One transaction of one order; a place of -1 means that it is over. Whether the item is oversold now."""
    database.execute("begin")
    if places[order] == 0:
        (available,) = database.execute(CHECK).fetchone()
        places[order] = 1 if available >= 1 else -1
    elif places[order] == 1:
        database.execute(UPDATE)
        places[order] = 2
    else:
        database.execute(FULFIL, (f"order-{order}",))
        places[order] = -1
    database.execute("commit")
    return bool(database.execute(LOOK).fetchone()[0] < 0)
