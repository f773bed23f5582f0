"""Early cutoff: what cannot differ is not run again, and the answer is that of running everything."""

from __future__ import annotations

import os
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.retroaction.random_change import changed, live, loaded, program, written

from retroact.app import App
from retroact.function.code import load_path
from retroact.function.registry import Registry
from retroact.retroaction.difference import Difference, Effort

FIELDS = ("runs", "events", "rows", "violations_before", "violations_after", "invariants")


def check(seed: int) -> Effort:
    """Both ways of running a random change over a random trace give the same answer."""
    chance = random.Random(seed)
    before = program(chance)
    after = changed(before, chance)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with App(folder / "test.db", loaded(written(folder, before))) as app:
            live(app, chance)
            runs = [run.run for run in reversed(app.runs(most=10_000)) if run.run != "create" or chance.random() < 0.3]
            share = chance.choice((1.0, 1.0, 0.3))
            chosen = [run for run in runs if chance.random() < share] or runs
            path = written(folder / "changed", after)
            quick, full = app.retroact(chosen, path), app.retroact(chosen, path, full=True)
    again = f"seed {seed}; again (but for the order of its threads): RETROACT_SEED={seed} pytest tests/retroaction -k running_everything"
    for field in FIELDS:
        assert_same(field, getattr(quick, field), getattr(full, field), again)
    assert full.effort.checked == full.effort.untouched == 0
    assert quick.effort.executed <= full.effort.executed
    return quick.effort


def assert_same(field: str, quick: Any, full: Any, again: str) -> None:
    for number, (one, other) in enumerate(zip(quick, full, strict=False)):
        assert one == other, f"{field}[{number}], {again}"
    assert len(quick) == len(full), f"{field}, {again}"


def test_the_answer_is_that_of_running_everything() -> None:
    seed = os.environ.get("RETROACT_SEED")
    efforts = [check(number) for number in (range(20) if seed is None else [int(seed)])]
    assert sum(e.untouched + e.executed for e in efforts) > 0
    assert seed is not None or min(sum(e.untouched for e in efforts), sum(e.checked for e in efforts)) > 0


@pytest.mark.long
@pytest.mark.timeout(7200)
def test_the_answer_is_that_of_running_everything_on_1_000_traces() -> None:
    first = int(os.environ.get("RETROACT_SEED", "1000"))
    for seed in range(first, first + 1000):
        check(seed)


BANK = """
from retroact import invariant, now, transaction, workflow

RAN = []

class Poor(Exception): pass

@transaction
def setup(conn) -> None:
    conn.execute("create table acct (id integer primary key, bal integer)")
    conn.execute("create table stock (item text primary key, n integer)")
    conn.execute("create table log (what text)")
    conn.execute("insert into acct values (1, 100), (2, 100), (3, 100)")
    conn.execute("insert into stock values ('apple', 5), ('pear', 5)")

@transaction
def fee(conn, acct: int) -> None:
    RAN.append(f"fee {acct}")
    conn.execute("update acct set bal = bal - 1 where id = :i", i=acct)

@transaction
def deposit(conn, acct: int, cents: int) -> int:
    RAN.append(f"deposit {acct}")
    bal = conn.value("select bal from acct where id = :i", i=acct)
    if bal < 0:
        raise Poor(str(acct))
    conn.execute("update acct set bal = :b where id = :i", i=acct, b=bal + cents)
    return bal + cents

@transaction
def take(conn, item: str) -> None:
    RAN.append(f"take {item}")
    conn.execute("update stock set n = n - 1 where item = :item", item=item)

@transaction
def reset(conn, acct: int) -> None:
    RAN.append(f"reset {acct}")
    conn.execute("update acct set bal = 50 where id = :i", i=acct)

@transaction
def rich(conn, least: int) -> int:
    RAN.append("rich")
    return conn.value("select count(*) from acct where bal > :least", least=least)

@transaction
def both(conn, acct: int) -> None:
    RAN.append(f"both {acct}")
    fee(acct)

@transaction
def index(conn) -> None:
    RAN.append("index")
    conn.execute("create index by_bal on acct (bal)")

@workflow
def order(acct: int, item: str) -> int:
    RAN.append(f"order {acct}")
    take(item)
    fee(acct)
    try:
        return deposit(acct, 5)
    except Poor:
        return -1

@invariant
def balanced(conn) -> bool:
    return conn.value("select a.bal + s.n from acct a, stock s where a.id = 3 and s.item = 'pear'") > 102
"""
DEARER = ("set bal = bal - 1", "set bal = bal - 2")


class Bank:
    """A bank on a file, and its past."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        (folder / "bank.py").write_text(BANK)
        self.app = App(folder / "bank.db", load_path(folder / "bank.py"))
        self.app.run("setup")
        self.runs: list[str] = []

    def run(self, function: str, *args: Any) -> None:
        """One call, under an id of its own."""
        self.runs.append(f"{len(self.runs)}-{function}")
        self.app.run(function, *args, run=self.runs[-1])

    def retroact(self, *change: str, runs: list[str] | None = None) -> tuple[Difference, list[str]]:
        """The difference that a change of text makes, which is that of running everything; and what was run for it."""
        path = self._folder / "changed" / "bank.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(BANK.replace(*change) if change else BANK)
        module = load_path(path)
        registry = Registry.of(module)
        chosen = self.runs if runs is None else runs
        full = self.app.retroact(chosen, registry, full=True)
        module.RAN.clear()
        quick = self.app.retroact(chosen, registry)
        for field in FIELDS:
            assert getattr(quick, field) == getattr(full, field), field
        return quick, list(module.RAN)


@pytest.fixture
def bank(tmp_path: Path) -> Iterator[Bank]:
    bank = Bank(tmp_path)
    yield bank
    bank.app.close()


def test_only_what_reads_what_differs_is_run(bank: Bank) -> None:
    for number in (1, 2):
        bank.run("deposit", number, 5)
        bank.run("fee", 1)
        bank.run("take", "apple")
        bank.run("deposit", number, 5)
    difference, ran = bank.retroact(*DEARER)
    assert ran == ["fee 1", "deposit 1", "fee 1"]
    assert difference.effort == Effort(executed=3, checked=0, untouched=5)
    assert [row.now for row in difference.rows] == [{"id": 1, "bal": 106}]


def test_the_same_code_runs_nothing(bank: Bank) -> None:
    bank.run("deposit", 1, 5)
    bank.run("order", 2, "pear")
    difference, ran = bank.retroact()
    assert (ran, difference.effort) == ([], Effort(untouched=4))
    assert not any(event.differs for event in difference.events)


def test_a_read_that_finds_the_same_needs_no_execution(bank: Bank) -> None:
    """The question reaches a row that differs, but its answer does not."""
    bank.run("fee", 1)
    bank.run("rich", 10)
    bank.run("rich", 98)
    difference, ran = bank.retroact(*DEARER)
    assert ran == ["fee 1", "rich"]
    assert difference.effort == Effort(executed=2, checked=1)


def test_a_row_that_is_the_same_again_is_clean(bank: Bank) -> None:
    bank.run("fee", 1)
    bank.run("reset", 1)
    bank.run("deposit", 1, 5)
    difference, ran = bank.retroact(*DEARER)
    assert ran == ["fee 1", "reset 1"], "to SQL, the reset changed another row than then"
    assert difference.rows == ()


def test_an_untouched_transaction_can_break_an_invariant(bank: Bank) -> None:
    """Neither reads what the other writes; what must hold is about both."""
    bank.run("fee", 3)
    bank.run("take", "apple")
    bank.run("take", "pear")
    bank.run("take", "pear")
    difference, ran = bank.retroact(*DEARER)
    assert ran == ["fee 3"]
    assert [v.run for v in difference.violations_before] == [bank.runs[3]]
    assert [v.run for v in difference.violations_after] == [bank.runs[2]]
    assert [event.broke for event in difference.events] == [(), (), ("balanced",), ()]
    cheaper, ran = bank.retroact("set bal = bal - 1", "set bal = bal + 1")
    assert ran == ["fee 3"]
    assert cheaper.violations_after == ()


def test_a_bystander_that_cannot_differ_is_not_run_either(bank: Bank) -> None:
    bank.run("fee", 1)
    bank.run("deposit", 2, 5)
    bank.run("deposit", 1, 5)
    bank.run("fee", 2)
    difference, _ = bank.retroact(*DEARER, runs=[bank.runs[0], bank.runs[3]])
    assert difference.effort == Effort(executed=3, untouched=1)
    assert [event.run for event in difference.events] == [bank.runs[0], bank.runs[2], bank.runs[3]]


def test_a_transaction_that_joins_a_changed_one_is_changed(bank: Bank) -> None:
    bank.run("both", 1)
    difference, ran = bank.retroact(*DEARER)
    assert ran == ["both 1", "fee 1"]
    assert [row.now for row in difference.rows] == [{"id": 1, "bal": 98}]


def test_a_workflow_sleeps_until_one_of_its_transactions_may_differ(bank: Bank) -> None:
    bank.run("order", 1, "apple")
    bank.run("order", 2, "pear")
    bank.run("fee", 1)
    bank.run("order", 1, "apple")
    difference, ran = bank.retroact("raise Poor(str(acct))", "raise Poor('poor')")
    assert ran == ["order 1", "deposit 1", "order 2", "deposit 2", "order 1", "deposit 1"]
    assert difference.effort == Effort(executed=3, untouched=7)
    difference, ran = bank.retroact("n = n - 1", "n = n - 2")
    assert [line for line in ran if line[0] != "o"] == ["take apple", "take pear", "take apple"]
    assert {row.key for row in difference.rows} == {"apple", "pear"}


def test_a_changed_schema_is_made_again(bank: Bank) -> None:
    bank.run("deposit", 1, 5)
    bank.run("index")
    bank.run("fee", 1)
    bank.run("rich", 98)
    bank.run("deposit", 2, 5)
    difference, ran = bank.retroact(*DEARER)
    assert ran == ["index", "fee 1"]
    assert difference.effort == Effort(executed=2, checked=1, untouched=2)
    bank.run("fee", 3)
    assert bank.retroact("create index by_bal on acct (bal)", "create index by_bal on acct (bal, id)")[1]
