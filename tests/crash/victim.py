"""Starts the process that is killed, kills it, and looks at what is left."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw

from retroact.engine.sqlite.history import History
from retroact.engine.sqlite.pagelog import PageLog
from retroact.engine.sqlite.trace_reader import TraceReader
from retroact.replay.divergence import Verdict
from retroact.replay.replayer import Replayer
from retroact.replay.shelf import Shelf
from retroact.replay.workflows import replay_workflows
from retroact.trace.record import Record, Verb

HERE = Path(__file__).parent
STOCK = 1_000_000


class Victim:
    """Lives on one database, generation after generation."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.database = folder / "shop.db"
        self.world = folder / "world.txt"
        self.random = random.Random(seed)
        #: What was acknowledged by any generation.
        self.acknowledged: list[str] = []
        self.generations = 0
        environment = {**os.environ, "RETROACT_CRASH_WORLD": str(self.world), "PYTHONUNBUFFERED": "1"}
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / "child.py")], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def live(self, what: str, *, threads: int, count: int, kill_after: float | None) -> bool:
        """One generation, killed some seconds after it has begun or has opened the database (or not at all); whether it came to
        its end by itself."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self.generations += 1
        self._process.stdin.write(f"{what} {self.database} {self.generations} {threads} {count}\n")
        self._process.stdin.flush()
        closed = False
        timer: threading.Timer | None = None
        pid = 0
        killed_from = self.random.choice(["pid", "open", "open"])
        for line in self._process.stdout:
            word, _, rest = line.strip().partition(" ")
            match word:
                case "pid" | "open":
                    pid = int(rest or pid)
                    if kill_after is not None and word == killed_from and pid:
                        timer = threading.Timer(kill_after, _kill, [pid])
                        timer.start()
                case "ended":
                    break
                case "failed":
                    raise AssertionError(rest)
                case "closed":
                    closed = True
                case _:
                    self.acknowledged.append(word)
        if timer is not None:
            timer.cancel()
            timer.join()
        return closed

    def moment(self) -> float:
        """When to kill: while the database is being opened and recovered, or in the middle of things."""
        return self.random.choice([self.random.uniform(0, 0.03), self.random.uniform(0.01, 0.15)])

    def close(self) -> None:
        self._process.communicate()


@contextlib.contextmanager
def victim(folder: Path, seed: int) -> Iterator[Victim]:
    found = Victim(folder, seed)
    try:
        yield found
    finally:
        found.close()


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


# --- what must hold afterwards ---------------------------------------------------------------------------------------------


def check_orders(victim: Victim) -> None:
    """Every run has its outcome, and every effect is there as often as the outcome says."""
    trace = TraceReader(victim.database)
    runs = {run.run: run for run in trace.runs() if run.parent is None and run.function.startswith("buy")}
    everything = [run for run in trace.runs() if not run.state.terminal]
    assert not everything, f"runs without an outcome: {everything}"
    missing = [order for order in victim.acknowledged if order not in runs]
    assert not missing, f"acknowledged and lost: {missing}"

    ledger: dict[str, Counter[str]] = defaultdict(Counter)
    for what, order in rows(victim.database, "select what, for_order from ledger"):
        ledger[order][what] += 1
    world: dict[str, Counter[str]] = defaultdict(Counter)
    keys: Counter[str] = Counter()
    for line in victim.world.read_text().splitlines() if victim.world.exists() else []:
        key, what, order = line.split(" ")
        world[order][what.partition("-")[0]] += 1
        if what != "notify":
            keys[key] += 1
    for order, run in runs.items():
        done = run.state.value == "committed"
        expected = Counter({"reserve": 1, "fulfil": 1} if done else {"reserve": 1, "release": 1})
        assert ledger[order] == expected, (order, run.state, ledger[order])
        assert world[order]["charge"] == 1, (order, world[order])
        assert world[order]["refund"] == (0 if done else 1), (order, world[order])
        assert world[order]["notify"] >= (1 if done else 0), (order, world[order])
    assert not [key for key, times in keys.items() if times > 1], "an effect with an inquiry happened twice"
    committed = sum(run.state.value == "committed" for run in runs.values())
    assert rows(victim.database, "select left from stock") == [(STOCK - committed,)]
    _check_receipts(trace, victim)
    trace.close()


def _check_receipts(trace: TraceReader, victim: Victim) -> None:
    """What was charged is what the record says was charged."""
    sent = {line.split(" ")[0]: line.split(" ")[1] for line in victim.world.read_text().splitlines()}
    for record in trace.records_between(0, trace.last_version()):
        if record.function == "charge":
            seen = record.arguments.split('"seen":')[1].rstrip("}")
            assert sent[f"{record.run}.{record.step}"] == f"charge-{seen}", record


def check_pairs(victim: Victim) -> None:
    """No key has one row, and every acknowledged key has two and a record."""
    found: dict[str, list[str]] = defaultdict(list)
    for what, key in rows(victim.database, "select what, for_order from ledger order by rowid"):
        found[key].append(what)
    half = {key: whats for key, whats in found.items() if whats != ["first", "second"]}
    assert not half, f"half of a transaction, or twice: {half}"
    recorded = {run for (run,) in rows(victim.database, "select run from retroact_record where failure is null")}
    lost = [key for key in victim.acknowledged if key not in found or key not in recorded]
    assert not lost, f"acknowledged and lost: {lost}"
    assert set(found) == recorded - {"create"}, "a record without its effects, or effects without their record"


def check_past(victim: Victim, *, versions: int, workflows: int = 0) -> None:
    """Chain and page log are whole, past states are what the records say, and all of it replays."""
    pages = PageLog(victim.database)
    assert not list(pages.verify())
    pages.close()
    history = History(victim.database)
    try:
        last = history.trace.verify()
        assert last == history.trace.last_version()
        records = list(history.trace.records_between(0, last))
        _check_states(history, records, sorted({last, *(victim.random.randint(1, last) for _ in range(versions))}))
        shelf = Shelf(history.trace)
        try:
            report = Replayer(history, shelf).replay(sorted(records, key=lambda r: (r.snapshot, r.version)))
            strange = [t for t in report.transactions if t.verdict is not Verdict.IDENTICAL]
            assert not strange, strange[:3]
            runs = [run.run for run in history.trace.runs() if run.kind == "workflow"]
            chosen = victim.random.sample(runs, min(workflows, len(runs)))
            assert all(w.verdict is Verdict.IDENTICAL for w in replay_workflows(history.trace, shelf, chosen))
        finally:
            shelf.close()
    finally:
        history.close()


def _check_states(history: History, records: list[Record], versions: list[int]) -> None:
    tables: dict[str, dict[int | None, dict[str, Any]]] = {"ledger": {}, "stock": {}}
    done = 0
    for version in versions:
        for record in records[done:version]:
            for change in record.changes:
                if change.verb is Verb.SCHEMA:
                    continue
                table = tables[change.table]
                before = table.pop(change.rowid, {})
                if change.after is not None:
                    table[change.rowid_after] = {**before, **change.after}
        done = version
        branch = history.at(version)
        for name, table in tables.items():
            expected = sorted((rowid, *row.values()) for rowid, row in table.items())
            assert sorted(branch.query(f"select rowid, * from {name}")[1]) == expected, (version, name)
        branch.close()


def rows(database: Path, sql: str) -> list[Any]:
    connection = apsw.Connection(str(database))
    connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
    try:
        return connection.execute(sql).fetchall()
    finally:
        connection.close()
