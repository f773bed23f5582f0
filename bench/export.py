"""Portable traces: their size must grow with what is exported, not with the database."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw

from bench import market
from bench.harness import Options, below, figure
from retroact import App
from retroact.portable import ExportOptions, export, open_portable

MEGABYTES = (1, 100, 1000)
#: Workflows of three transactions each: 3, 30, 300 and 3,000 of them.
WORKFLOWS = (1, 10, 100, 1000)
#: Bytes that a customer takes with the index, about.
ROW = 270
#: Below so many commits (`--commits`) the largest database is left out: short rounds are to be short.
FULL = 50_000


def export_sizes(callers: int, options: Options) -> Iterator[dict[str, Any]]:
    """Sizes against that of the database; how long it takes to export, and to replay from the file."""
    for megabytes in MEGABYTES if options.commits >= FULL else MEGABYTES[:1]:
        with options.workspace() as folder:
            path = Path(folder) / "market.db"
            rows = generate(path, megabytes * 1_000_000 // ROW)
            live(path, rows)
            for workflows in WORKFLOWS:
                yield _figure(path, callers, megabytes, workflows, ExportOptions())
            yield _figure(path, callers, megabytes, WORKFLOWS[0], ExportOptions(redact=("customers.email",)))


def generate(path: Path, rows: int) -> int:
    """A database with so many customers, made without the platform."""
    database = apsw.Connection(str(path))
    database.execute("pragma journal_mode = off; pragma synchronous = off")
    database.execute("create table customers (id integer primary key, email text unique, balance integer, address text)")
    database.execute("create table orders (id integer primary key, customer integer, cents integer, note text)")
    database.execute("create index orders_of on orders (customer)")
    for low in range(0, rows, 200_000):
        database.execute(
            "with recursive n(i) as (select :low union all select i + 1 from n where i + 1 < :high) insert into customers"
            " select i, 'customer' || i || '@example.com', 1000000, hex(randomblob(90)) from n",
            {"low": low, "high": min(low + 200_000, rows)},
        )
    database.execute(
        "insert into orders (customer, cents, note) select abs(random()) % :rows, 5, hex(randomblob(20)) from customers limit :rows / 20",
        {"rows": rows},
    )
    database.close()
    return rows


def live(path: Path, rows: int) -> None:
    """A thousand workflows of customers chosen by chance."""
    chance = random.Random(7)
    with App(path, market) as app:
        app.engine._database.pragma("synchronous", "off")
        for number in range(max(WORKFLOWS)):
            app.run("buy", f"customer{chance.randrange(rows)}@example.com", 5, run=f"run-{number}")


def _figure(path: Path, callers: int, megabytes: int, workflows: int, wanted: ExportOptions) -> dict[str, Any]:
    target = path.with_name("bug.retro")
    began = time.perf_counter()
    exported = export(path, [f"run-{number}" for number in range(workflows)], target, wanted)
    seconds = time.perf_counter() - began
    began = time.perf_counter()
    with open_portable(target) as past:
        opened = time.perf_counter() - began
        assert past.replay().faithful
    target.unlink()
    goal = below(100, "ours", "kB") if workflows == WORKFLOWS[0] else None
    size, database = round(exported.size / 1000, 1), path.stat().st_size // 1000
    name = f"export.{'redacted.' if wanted.redact else ''}{megabytes}MB.{workflows * 3}tx"
    return figure(
        name,
        callers,
        size,
        database,
        goal,
        less_is_better=True,
        unit="kB",
        pages=exported.pages,
        seconds=round(seconds, 2),
        open_ms=round(opened * 1000, 1),
        identical=len(exported.report.transactions),
        note=f"{exported.pages} of {exported.pages_at_home} pages, {seconds:.2f} s",
    )
