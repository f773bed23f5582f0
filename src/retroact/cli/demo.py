"""`retroact demo`: the story of figures 2 to 5 of "Transactions and Serverless are Made for Each Other", happening here and now.

A shop with a race in it takes orders from real threads and oversells; the trace is replayed; the fixed code is run over it. Nothing is
scripted: if the threads should miss one another, the shelf is filled again and the next customers come.

This module must not know how any of it is done: it uses the public App.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import sys
import threading
from importlib import resources
from pathlib import Path
from string import ascii_lowercase
from typing import Any

from retroact.app import App
from retroact.diagram.moments import event_moments, lanes_of, recorded_moments
from retroact.diagram.timeline import Moment, timeline
from retroact.engine.clock import monotonic
from retroact.errors import NoProject
from retroact.function.code import load_path
from retroact.replay.divergence import Verdict
from retroact.replay.replayer import Report
from retroact.retroaction.difference import Difference
from retroact.trace.record import Record

#: Customers who want the one espresso machine, and customers who want one of the grinders, of which there are enough.
RIVALS = 3
OTHERS = 3
#: Rushes to wait for one that goes wrong.
ROUNDS = 50
_FILES = {"shop.py": "shop.py.template", "shop_fixed.py": "shop_fixed.py.template"}
_PROJECT = 'code = "shop.py"\ndatabase = "shop.db"\n'


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """What happened in the demo."""

    orders: int
    available: int
    records: tuple[Record, ...]
    report: Report
    difference: Difference
    seconds: float

    @property
    def oversold(self) -> int:
        """Items sold that were not there."""
        return max(0, -self.available)


def demo(folder: Path, *, as_json: bool) -> int:
    """Let the story happen in `folder`, which must be new or empty, and tell it. Raises NoProject."""
    began = monotonic()
    write_project(folder)
    story = happen(folder, began)
    if as_json:
        print(json.dumps(as_object(story)))
    else:
        print(tell(story, folder))
    good = story.oversold and story.report.faithful and story.difference.clean and story.difference.violations_before
    return 0 if good else 1


def write_project(folder: Path) -> None:
    """Write the shop, the fixed shop and the project file. Raises NoProject when something is there already."""
    if folder.exists() and any(folder.iterdir()):
        raise NoProject(problem=f"{folder} is not empty", remedy="Name a new folder: `retroact demo FOLDER`, or remove that one.")
    folder.mkdir(parents=True, exist_ok=True)
    templates = resources.files("retroact.cli").joinpath("templates")
    for name, template in _FILES.items():
        (folder / name).write_text(templates.joinpath(template).read_text())
    (folder / "retroact.toml").write_text(_PROJECT)


def happen(folder: Path, began: float) -> Story:
    """Take orders until an item is oversold, replay that, and run the fix over it."""
    shop = load_path(folder / "shop.py")
    with App(folder / "shop.db", shop) as app:
        app.run("open_shop", {"espresso": 1, "grinder": OTHERS}, run="opening")
        runs, available, number = rush(app, shop, 1), in_stock(app), 1
        while available >= 0 and number < ROUNDS:
            app.run("update_inventory", "espresso", available - 1)
            app.run("update_inventory", "grinder", -OTHERS)
            number += 1
            runs, available = rush(app, shop, number), in_stock(app)
        report = app.replay(runs)
        difference = app.retroact(runs, folder / "shop_fixed.py")
    records = tuple(t.record for t in report.transactions)
    seconds = monotonic() - began
    return Story(orders=len(runs), available=available, records=records, report=report, difference=difference, seconds=seconds)


def in_stock(app: App) -> int:
    """How many of the item that everybody wants the shop thinks that it has."""
    branch = app.history.at(app.trace.last_version())
    _, rows = branch.query("select available from inventory where item = 'espresso'")
    branch.close()
    return rows[0][0]


def rush(app: App, shop: Any, number: int) -> list[str]:
    """All customers order at once, each on a thread of its own; returns the ids of their runs."""
    wanted = ["espresso"] * RIVALS + ["grinder"] * OTHERS
    orders = [shop.Order(f"order-{number}{letter}", item) for letter, item in zip(ascii_lowercase, wanted, strict=False)]
    doors = threading.Barrier(len(orders))

    def customer(order: Any) -> None:
        doors.wait()
        with contextlib.suppress(shop.OutOfStock):  # an honest answer: that customer goes home without
            app.run("checkout", order, run=order.id)

    threads = [threading.Thread(target=customer, args=(order,)) for order in orders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [order.id for order in orders]


def as_object(story: Story) -> dict[str, Any]:
    """The story in numbers."""
    return {
        "orders": story.orders,
        "oversold": story.oversold,
        "transactions": len(story.report.transactions),
        "identical": story.report.count(Verdict.IDENTICAL),
        "violations_before": len(story.difference.violations_before),
        "violations_after": len(story.difference.violations_after),
        "seconds": round(story.seconds, 3),
    }


def tell(story: Story, folder: Path) -> str:
    """The story in words and pictures."""
    report, difference = story.report, story.difference
    broke = {v.version: v.invariant for v in difference.violations_before}
    then = [m for m in recorded_moments(story.records, broke) if _about(m.lane, difference)]
    now = [m for m in event_moments(difference.events) if _about(m.lane, difference)]
    rate = len(report.transactions) / report.seconds if report.seconds else 0
    sold = sum(run.then is not None and run.then.committed for run in difference.runs if _about(run.run, difference))
    parts = [
        _heading(1, "It goes wrong in production"),
        f"{story.orders} customers order at the same moment. {RIVALS} of them want the last espresso machine, and {sold} "
        f"get it: the shop now has {story.available} of it.\n"
        "No single order did anything wrong. Here is what they did together, one column an order:",
        _drawn(then),
        _heading(2, "It goes wrong again, here: replay"),
        f"{len(report.transactions)} transactions executed again, each on the state that it saw: {_verdicts(report)}"
        f" ({rate:,.0f} a second).\nEvery statement, every result, every row changed and every outcome was compared.",
        _heading(3, "It would not have gone wrong: retroaction"),
        "shop_fixed.py makes the check and the update one transaction. The same requests, in the same order:",
        _drawn(now),
        _outcomes(difference),
        _invariants(difference),
        _heading(4, "Now you"),
        _next(folder, story),
    ]
    return "\n\n".join(part for part in parts if part)


def _heading(number: int, text: str) -> str:
    line = f"{number}. {text}"
    return f"\033[1m{line}\033[0m" if sys.stdout.isatty() else f"{line}\n{'-' * len(line)}"


def _about(run: str, difference: Difference) -> bool:
    return any(r.run == run and "espresso" in r.arguments for r in difference.runs)


def _drawn(moments: list[Moment]) -> str:
    return "\n".join("  " + line for line in timeline(lanes_of(moments), moments, width=118).splitlines())


def _verdicts(report: Report) -> str:
    counts = {verdict: report.count(verdict) for verdict in Verdict}
    return ", ".join(f"{count} {verdict.value}" for verdict, count in counts.items() if count)


def _outcomes(difference: Difference) -> str:
    lines = [f"  {run.run}: {_short(run.then)} -> {_short(run.now)}" for run in sorted(difference.runs, key=lambda r: r.run) if run.differs]
    same = sum(not run.differs for run in difference.runs)
    return "What comes of the orders:\n" + "\n".join([*lines, f"  {same} others: as it was"])


def _short(outcome: Any) -> str:
    if outcome is None:
        return "undecided"
    return "fulfilled" if outcome.committed else outcome.failure.error.rpartition(".")[2]


def _invariants(difference: Difference) -> str:
    before = [f"{v.invariant} was broken by {v.function} of {v.run} (version {v.version})" for v in difference.violations_before]
    after = [f"{v.invariant} is broken by {v.function} of {v.run}" for v in difference.violations_after]
    return (
        "Invariants, then: " + ("; ".join(before) or "all hold") + ".\nInvariants, with the fix: " + ("; ".join(after) or "all hold") + "."
    )


def _command(folder: Path) -> str:
    """What to type to run retroact in a folder: its name, or where it is when the shell would not find it."""
    if shutil.which("retroact"):
        return "retroact"
    return os.path.relpath(Path(sys.argv[0]).absolute(), folder.absolute())


def _next(folder: Path, story: Story) -> str:
    bad = story.difference.violations_before[0] if story.difference.violations_before else None
    run = bad.run if bad else story.records[0].run
    other = next((r.run for r in story.records if r.run != run and _about(r.run, story.difference)), run)
    version = bad.version - 1 if bad else story.records[0].version
    retroact = _command(folder)
    commands = [
        f"cd {folder}",
        f"{retroact} runs",
        f"{retroact} trace {run}",
        f'{retroact} asof {version} "select * from inventory"',  # noqa: S608 - a command to type
        f"{retroact} replay --all",
        f"{retroact} retro --all --with shop_fixed.py",
        f"{retroact} retro {run} {other} --explore",
    ]
    return f"The project is in {folder} ({story.seconds:.1f} s so far). Try:\n\n" + "\n".join(f"  {command}" for command in commands)
