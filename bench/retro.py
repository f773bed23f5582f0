"""Retroaction: changed code over the past of many transactions, of which the change touches few.

Four functions are called on random rows: two move money on an account, one takes from the stock, one writes an order. The change is in
one that 7 of 100 transactions call; what read the accounts that it wrote is touched too. The time is that of the answer, from opening
the past to the last row that differs, with the new code loaded and every record checked against its chain.
"""

from __future__ import annotations

import dataclasses
import random
import statistics
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench import workload
from bench.harness import Goal, Options, figure
from retroact import App
from retroact.engine.sqlite.history import History
from retroact.function.code import load_path
from retroact.function.registry import Registry
from retroact.replay.shelf import Shelf
from retroact.retroaction.difference import Difference
from retroact.retroaction.retroactor import Retroactor

TRANSACTIONS = 10_000
BANK = """
from retroact import invariant, transaction


@transaction
def deposit(conn, acct: int) -> int:
    bal = conn.value("select bal from acct where id = :i", i=acct)
    conn.execute("update acct set bal = :b, n = n + 1 where id = :i", i=acct, b=bal + 1)
    return bal + 1


@transaction
def fee(conn, acct: int) -> int:
    bal = conn.value("select bal from acct where id = :i", i=acct)
    conn.execute("update acct set bal = :b, n = n + 1 where id = :i", i=acct, b=bal - 1)
    return bal - 1


@transaction
def take(conn, item: int, k: int) -> int:
    stock = conn.value("select stock from item where id = :i", i=item)
    if stock < k:
        raise ValueError("out of stock")
    conn.execute("update item set stock = :s where id = :i", i=item, s=stock - k)
    return stock - k


@transaction
def order(conn, order: str, item: int, acct: int) -> str:
    conn.execute("insert into orders (id, item, acct) values (:o, :i, :a)", o=order, i=item, a=acct)
    return order
"""
CHANGED = BANK.replace("b=bal - 1)\n    return bal - 1", "b=bal - 2)\n    return bal - 2")
WATCHED = """

@invariant
def the_bank_is_rich(conn) -> bool:
    return conn.value("select bal from acct where id = 1") > 0
"""
ASKED = Goal("<= 0.11 of it", "share", 0.11 + 1e-9, more_is_better=False)


def retro(callers: int, options: Options) -> Iterator[dict[str, Any]]:
    """The time of a retroaction as a share of the time that the same transactions took when they were run."""
    with options.workspace() as name:
        folder = Path(name)
        original, original_used = _original(folder, callers)
        for label, source, full, asked in (
            ("retro", CHANGED, False, ASKED),
            ("retro-watched", CHANGED + WATCHED, False, None),
            ("retro-full", CHANGED, True, None),
        ):
            changed = folder / label / "bank.py"
            changed.parent.mkdir()
            changed.write_text(source)
            rounds = [_retroact(folder, changed, full=full) for _ in range(options.rounds + 1)][1:]
            difference = rounds[0].difference
            seconds = statistics.median(one.seconds for one in rounds)
            more = {
                "share": round(seconds / original, 4),
                # What neighbours on the machine do to one side and not to the other is not in this one.
                "processor_share": round(statistics.median(one.used for one in rounds) / original_used, 4),
                "executed": difference.effort.executed,
                "checked": difference.effort.checked,
                "untouched": difference.effort.untouched,
                "rows": len(difference.rows),
                "all_events_read_s": round(statistics.median(one.reading for one in rounds), 3),
            }
            pair = round(seconds, 4), round(original, 4)
            note = f"{more['share']:.3f} of the original time, {more['executed']} executed"
            yield figure(label, callers, *pair, asked, less_is_better=True, unit="s", note=note, **more)


def _original(folder: Path, callers: int) -> tuple[float, float]:
    """How long it took when it happened, and how much of the processor."""

    (folder / "bank.py").write_text(BANK)
    workload.create(folder / "bank.db")
    app: Any = App(folder / "bank.db", load_path(folder / "bank.py"))
    deposit, fee, take, order = (app.registry.get(name) for name in ("deposit", "fee", "take", "order"))

    def call(k: int) -> None:
        chance = random.Random(k)
        for i in range(TRANSACTIONS // callers):
            acct, item, kind = chance.randint(1, workload.ACCOUNTS), chance.randint(1, workload.ITEMS), chance.random()
            if kind < 0.07:
                app.run(fee, acct)
            elif kind < 0.5:
                app.run(deposit, acct)
            elif kind < 0.75:
                app.run(take, item, 1)
            else:
                app.run(order, f"{k}-{i}", item, acct)

    threads = [threading.Thread(target=call, args=(k,)) for k in range(callers)]
    began, used = time.perf_counter(), time.process_time()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds, used = time.perf_counter() - began, time.process_time() - used
    app.close()
    return seconds, used


@dataclasses.dataclass(frozen=True)
class Round:
    """One retroaction."""

    difference: Difference
    seconds: float
    #: Seconds of the processor.
    used: float
    #: How long it takes to look at all that did not differ as well.
    reading: float


def _retroact(folder: Path, changed: Path, *, full: bool) -> Round:
    listing = History(folder / "bank.db")
    runs = [run.run for run in listing.trace.runs()]
    listing.close()
    began, used = time.perf_counter(), time.process_time()
    history = History(folder / "bank.db")
    shelf = Shelf(history.trace)
    try:
        registry = Registry.of(load_path(changed))
        difference = Retroactor(history, shelf, registry, full=full).run(runs)
        seconds, used = time.perf_counter() - began, time.process_time() - used
        tuple(difference.events), tuple(difference.runs)
        return Round(difference, seconds, used, time.perf_counter() - began - seconds)
    finally:
        shelf.close()
        history.close()
