"""Changed code over a recorded trace: merges, splits, added and removed calls, on the schedule of the original."""

from __future__ import annotations

import textwrap
import threading
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from retroact.app import App
from retroact.errors import UnknownFunction, UnknownRun
from retroact.function.code import load_path
from retroact.retroaction.difference import Difference

SHOP = """
from __future__ import annotations
from retroact import gather_async, invariant, step, transaction, workflow, sleep, now, uuid

class OutOfStock(Exception): pass

@transaction
def setup(conn) -> None:
    conn.execute("create table inventory (item text primary key, available integer not null)")
    conn.execute("create table orders (id text primary key, item text not null, note text)")
    conn.execute("insert into inventory values ('apple', 1), ('pear', 9)")

@transaction
def check(conn, item: str) -> bool:
    return conn.value("select available from inventory where item = :item", item=item) >= 1

@transaction
def update(conn, item: str) -> None:
    conn.execute("update inventory set available = available - 1 where item = :item", item=item)

@update.compensation
def give_back(conn, item: str) -> None:
    conn.execute("update inventory set available = available + 1 where item = :item", item=item)

@step
def charge(item: str) -> str:
    return f"paid for {item}"

@transaction
def fulfil(conn, order: str, item: str) -> str:
    conn.execute("insert into orders values (:order, :item, null)", order=order, item=item)
    return order

@workflow
def checkout(order: str, item: str) -> str:
    if not check(item):
        raise OutOfStock(item)
    update(item)
    charge(item)
    return fulfil(order, item)

@invariant
def never_oversold(conn) -> bool:
    return conn.value("select min(available) from inventory") >= 0
"""

MERGED = (
    """
@transaction
def reserve(conn, item: str) -> None:
    if conn.value("select available from inventory where item = :item", item=item) < 1:
        raise OutOfStock(item)
    conn.execute("update inventory set available = available - 1 where item = :item", item=item)
""",
    "if not check(item):\n        raise OutOfStock(item)\n    update(item)",
    "reserve(item)",
)


def changed(*, add: str = "", replace: str = "", by: str = "") -> str:
    """The shop with a function more, and a part of its text replaced."""
    assert not replace or replace in SHOP
    return SHOP.replace(replace, by).replace("@workflow", textwrap.dedent(add) + "\n@workflow", 1)


class Oversold:
    """A shop whose only apple was sold twice: both orders check before either updates."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "shop.py").write_text(SHOP)
        self.module = load_path(folder / "shop.py")
        self.app = App(folder / "shop.db", self.module)
        self.app.run("setup")
        self._order_together()

    def _order_together(self) -> None:
        """Two orders on real threads; a barrier stands between the check and the update of each, where any scheduler may put it."""
        update: Any = self.module.update
        self.module.__dict__["update"] = _Meeting(update, threading.Barrier(2))
        threads = [threading.Thread(target=self.app.run, args=("checkout", name, "apple"), kwargs={"run": name}) for name in ("a", "b")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.module.__dict__["update"] = update

    def retroact(self, source: str, runs: tuple[str, ...] = ("a", "b"), **more: Any) -> Difference:
        """Run a changed shop over the orders."""
        path = self.folder / "changed.py"
        path.write_text(source)
        return self.app.retroact(runs, path, **more)


class _Meeting:
    """Stands before a function: whoever calls it waits for the other first."""

    def __init__(self, function: Any, barrier: threading.Barrier) -> None:
        self._function = function
        self._barrier = barrier

    def __call__(self, *args: Any) -> Any:
        self._barrier.wait()
        return self._function(*args)


@pytest.fixture
def oversold(tmp_path: Path) -> Any:
    shop = Oversold(tmp_path)
    yield shop
    shop.app.close()


def outcomes(difference: Difference) -> dict[str, str]:
    """What came of each run: its value or its error."""
    found: dict[str, str] = {}
    for run in difference.runs:
        assert run.now is not None, run.undecided
        found[run.run] = run.now.value or "" if run.now.failure is None else run.now.failure.error.rpartition(".")[2]
    return found


def calls(difference: Difference, run: str) -> list[str]:
    """The transactions of a run in the new schedule; those that are gone with a minus, new ones with a plus."""
    signs = {(True, False): "+", (False, True): "-"}
    return [signs.get((e.new, e.removed), "") + e.function for e in difference.events if e.run == run]


def test_the_same_code_changes_nothing(oversold: Oversold) -> None:
    difference = oversold.retroact(SHOP)
    assert not any(run.differs for run in difference.runs)
    assert not any(event.differs for event in difference.events)
    assert difference.rows == ()
    assert [v.function for v in difference.violations_before] == ["update"]
    assert [v.function for v in difference.violations_after] == ["update"]
    assert not difference.clean


def test_two_transactions_merged_into_one(oversold: Oversold) -> None:
    """Figure 5 of the article: the merged function runs where the first of the two was."""
    add, replace, by = MERGED
    difference = oversold.retroact(changed(add=add, replace=replace, by=by))
    assert sorted(outcomes(difference).values()) == ['"a"', "OutOfStock"] or sorted(outcomes(difference).values()) == ['"b"', "OutOfStock"]
    assert difference.violations_after == ()
    assert difference.clean
    (inventory,) = [row for row in difference.rows if row.table == "inventory"]
    assert (inventory.then, inventory.now) == ({"item": "apple", "available": -1}, {"item": "apple", "available": 0})
    winner = next(run for run, outcome in outcomes(difference).items() if outcome != "OutOfStock")
    assert calls(difference, winner) == ["+reserve", "-check", "-update", "fulfil"]


def test_one_transaction_split_in_two(oversold: Oversold) -> None:
    """Both parts run in the place of the one."""
    split = changed(
        add="""
            @transaction
            def note(conn, order: str) -> None:
                conn.execute("update orders set note = 'split' where id = :order", order=order)
            """,
        replace="    return fulfil(order, item)",
        by="    done = fulfil(order, item)\n    note(order)\n    return done",
    )
    difference = oversold.retroact(split)
    assert outcomes(difference) == {"a": '"a"', "b": '"b"'}
    assert calls(difference, "a") == ["check", "update", "fulfil", "+note"]
    assert {row.key: row.now["note"] for row in difference.rows if row.now and row.table == "orders"} == {"a": "split", "b": "split"}


def test_a_call_added_in_front(oversold: Oversold) -> None:
    front = changed(
        add="""
            @transaction
            def restock(conn, item: str) -> None:
                conn.execute("update inventory set available = available + 1 where item = :item", item=item)
            """,
        replace="    if not check(item):",
        by="    restock(item)\n    if not check(item):",
    )
    difference = oversold.retroact(front)
    assert calls(difference, "a") == ["+restock", "check", "update", "fulfil"]
    assert difference.violations_after == ()


def test_a_call_removed(oversold: Oversold) -> None:
    difference = oversold.retroact(changed(replace="    if not check(item):\n        raise OutOfStock(item)\n", by=""))
    assert calls(difference, "a") == ["-check", "update", "fulfil"]
    assert outcomes(difference) == {"a": '"a"', "b": '"b"'}
    assert [v.function for v in difference.violations_after] == ["update"]


def test_a_compensation_runs_in_the_past_too(oversold: Oversold) -> None:
    failing = changed(replace='    return f"paid for {item}"', by='    raise ValueError("declined")')
    difference = oversold.retroact(failing)
    assert outcomes(difference) == {"a": '"a"', "b": '"b"'}, "the step is answered from the record, not carried out again"
    late = changed(replace="    return fulfil(order, item)", by='    raise ValueError("too late")')
    difference = oversold.retroact(late)
    assert outcomes(difference) == {"a": "ValueError", "b": "ValueError"}
    assert calls(difference, "a") == ["check", "update", "+give_back", "-fulfil"]
    (inventory,) = [row for row in difference.rows if row.table == "inventory"]
    assert inventory.now == {"item": "apple", "available": 1}


def test_a_step_without_a_recorded_outcome_leaves_its_run_undecided(oversold: Oversold) -> None:
    other = changed(replace="    charge(item)\n", by='    charge(item + " twice")\n')
    difference = oversold.retroact(other)
    assert [run.undecided is not None for run in difference.runs] == [True, True]
    assert "--answer charge=JSON" in str(difference.runs[0].undecided)
    assert not difference.clean
    answered = oversold.retroact(other, answers={"charge": "paid"})
    assert outcomes(answered) == {"a": '"a"', "b": '"b"'}


def test_a_bystander_is_run_on_the_state_that_it_now_finds(oversold: Oversold) -> None:
    """Only one of the two orders is asked about; the other still runs its recorded code, and what then differs is told."""
    add, replace, by = MERGED
    difference = oversold.retroact(changed(add=add, replace=replace, by=by), runs=("a",))
    assert [run.run for run in difference.runs] == ["a"]
    assert len(difference.violations_before) == 1


def test_the_database_is_not_touched(oversold: Oversold) -> None:
    before = oversold.app.history.at(oversold.app.trace.last_version()).query("select * from inventory order by item")
    add, replace, by = MERGED
    oversold.retroact(changed(add=add, replace=replace, by=by))
    assert oversold.app.history.at(oversold.app.trace.last_version()).query("select * from inventory order by item") == before


def test_bad_questions_are_refused(oversold: Oversold) -> None:
    with pytest.raises(UnknownRun):
        oversold.retroact(SHOP, runs=("nobody",))
    with pytest.raises(UnknownFunction, match="checkout"):
        oversold.retroact(changed(replace="def checkout(", by="def purchase("))


ASYNC = """
from retroact import gather_async, sleep, step, transaction, workflow

@transaction
def setup(conn) -> None:
    conn.execute("create table log (entry text primary key)")

@transaction
def write(conn, entry: str) -> str:
    conn.execute("insert into log values (:entry)", entry=entry)
    return entry

@step
async def send(entry: str) -> str:
    return f"sent {entry}"

@workflow
def child(entry: str) -> str:
    return write(entry + ".1") + write(entry + ".2")

@workflow
async def parent(entry: str) -> str:
    first, second = await gather_async(child(entry + "a"), child(entry + "b"))
    await sleep(0.001)
    return first + second + await send(entry)
"""


def test_async_workflows_and_children(tmp_path: Path) -> None:
    """Children that ran beside one another are each replayed and retroacted in their own slots."""
    (tmp_path / "app.py").write_text(ASYNC)
    module: ModuleType = load_path(tmp_path / "app.py")
    with App(tmp_path / "app.db", module) as app:
        app.run("setup")
        value = app.run("parent", "x", run="p")
        assert value == "xa.1xa.2xb.1xb.2sent x"
        report = app.replay(["p"])
        assert report.faithful
        assert len(report.transactions) == 4
        (tmp_path / "changed.py").write_text(ASYNC.replace('write(entry + ".2")', 'write(entry + ".3")'))
        difference = app.retroact(["p"], tmp_path / "changed.py")
        assert outcomes(difference) == {"p": '"xa.1xa.3xb.1xb.3sent x"'}
        assert [row.key for row in difference.rows] == ["xa.2", "xa.3", "xb.2", "xb.3"]
