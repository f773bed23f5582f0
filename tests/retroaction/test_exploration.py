"""Exploration: what it finds from clean traces of programs of every kind, and what it says."""

from __future__ import annotations

import contextlib
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from retroact.app import App
from retroact.errors import BadSchedule, NotRepeatable, UnknownRun
from retroact.function.code import load_path
from retroact.retroaction.exploration import Exploration, Options, Schedule, StepPolicy, Turn, Unrecorded

HEAD = """
from retroact import gather, gather_async, invariant, sleep, step, transaction, workflow
"""


class Made:
    """An application from a text, and runs of it one after the other."""

    def __init__(self, folder: Path, source: str, *runs: tuple[Any, ...]) -> None:
        path = folder / "app.py"
        path.write_text(HEAD + textwrap.dedent(source))
        self.app = App(folder / "app.db", load_path(path))
        self.app.run("setup")
        self.names: list[str] = []
        for number, request in enumerate(runs):
            self.names.append("abcdefg"[number])
            with contextlib.suppress(Exception):
                self.app.run(*request, run=self.names[-1])

    def explore(self, *, changed: Any = None, **options: Any) -> Exploration:
        return self.app.explore(self.names, changed, Options(**options))


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Any]:
    apps: list[Made] = []

    def make(source: str, *runs: tuple[Any, ...]) -> Made:
        apps.append(Made(tmp_path, source, *runs))
        return apps[-1]

    yield make
    for one in apps:
        one.app.close()


SHOP = """
    class OutOfStock(Exception): pass

    @transaction
    def setup(conn) -> None:
        conn.execute("create table inventory (item text primary key, available integer not null)")
        conn.execute("create table orders (id integer primary key autoincrement, item text not null)")
        conn.execute("insert into inventory values ('apple', 1), ('pear', 1)")

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
        return "paid for " + item

    @transaction
    def fulfil(conn, item: str) -> int:
        conn.execute("insert into orders (item) values (:item)", item=item)
        return conn.value("select max(id) from orders")

    @workflow
    def checkout(item: str) -> int:
        if not check(item):
            raise OutOfStock(item)
        update(item)
        charge(item)
        return fulfil(item)

    @invariant
    def never_oversold(conn) -> bool:
        return conn.value("select min(available) from inventory") >= 0
"""


def test_the_oversell_is_found_from_a_trace_without_it(made: Any) -> None:
    """The second customer was told that there is no apple; what a charge of hers returns, the record does not say: it is mocked."""
    shop = made(SHOP, ("checkout", "apple"), ("checkout", "apple"))
    found = shop.explore(steps={"charge": StepPolicy(Unrecorded.MOCK)})
    assert found.by_name == {"never_oversold": found.violating}
    assert (found.serial_orders, found.serial_violating, found.all_serial) == (2, 0, True)
    worst = found.worst
    assert worst is not None
    first, second = ("a", "b") if worst.taken[0].root == "b" else ("b", "a")
    assert worst.explanation == (
        f'Let a = checkout(item="apple"),',  # noqa: F541 - beside its like
        f'Let b = checkout(item="apple"), begun in the state of version {found.version}.',
        f"Then never_oversold does not hold after turn 5, update of {second} (inventory.available 0 -> -1),",
        f"because check of {second} (turn 1) read what update of {first} (turn 3) then changed (inventory.available 1 -> 0), "
        f"and {second} went by what it had read.",
    )


def test_a_step_that_the_record_does_not_know_leaves_a_run_undecided(made: Any) -> None:
    """By default nothing is made up. What went wrong before is reported all the same."""
    shop = made(SHOP, ("checkout", "apple"), ("checkout", "apple"))
    found = shop.explore()
    assert found.undecided > 0
    assert "charge" in (found.undecided_because or "")
    assert found.violated
    assert not found.clean


def test_a_live_step_is_carried_out_once_however_many_schedules_come_by(made: Any, tmp_path: Path) -> None:
    log = tmp_path / "charged"
    body = f'with open({str(log)!r}, "a") as log:\n            log.write("x")\n        return "paid"'
    shop = made(SHOP.replace('return "paid for " + item', body), ("checkout", "apple"), ("checkout", "apple"))
    log.write_text("")
    assert shop.explore(steps={"charge": StepPolicy(Unrecorded.LIVE)}).undecided == 0
    assert log.read_text() == "x"


def test_runs_that_have_nothing_in_common_are_one_schedule(made: Any) -> None:
    """Apples and pears: only the numbers of the orders tell who came first."""
    shop = made(SHOP.replace("integer primary key autoincrement", "text primary key default (hex(randomblob(4)))"),
                ("check", "apple"), ("check", "pear"), ("update", "pear"))  # fmt: skip
    found = shop.explore(preemptions=None)
    assert found.explored == 2
    assert found.clean


def test_compensations_take_part(made: Any) -> None:
    """What a failing run gives back, another may have wanted meanwhile."""
    source = SHOP.replace("return fulfil(item)", 'raise ValueError("declined")')
    shop = made(source, ("checkout", "apple"), ("checkout", "apple"))
    found = shop.explore(serial=True)
    worst = found.smallest["not serial"]
    assert any(taken.function == "give_back" for taken in worst.taken)
    assert {e.outcome.failure.error.rpartition(".")[2] for e in worst.endings if e.outcome and e.outcome.failure} <= {
        "ValueError",
        "OutOfStock",
    }


def test_numbers_that_the_database_gives_are_part_of_the_answer(made: Any) -> None:
    shop = made(SHOP, ("fulfil", "apple"), ("fulfil", "pear"))
    found = shop.explore(serial=True)
    assert (found.explored, found.serial_orders, found.clean) == (2, 2, True)


COUNTER = """
    @transaction
    def setup(conn) -> None:
        conn.execute("create table counter (name text primary key, n integer not null)")
        conn.execute("insert into counter values ('a', 0), ('b', 0)")

    @transaction
    def read(conn, name: str) -> int:
        return conn.value("select n from counter where name = :name", name=name)

    @transaction
    def write(conn, name: str, n: int) -> None:
        conn.execute("update counter set n = :n where name = :name", name=name, n=n)

    @workflow
    def child(name: str) -> int:
        n = read(name)
        write(name, n + 1)
        return n + 1
"""
BESIDE = """
    @workflow
    def both(first: str, second: str) -> list[int]:
        return gather(child.start(first), child.start(second))
"""
ASYNC = """
    @workflow
    async def both(first: str, second: str) -> list[int]:
        found = await gather_async(child(first), child(second))
        await sleep(1)
        return found
"""


@pytest.mark.parametrize("source", [BESIDE, ASYNC], ids=["gather", "async"])
def test_what_a_run_does_beside_itself_is_interleaved_too(made: Any, source: str) -> None:
    """Two children of one run lose an update to each other; in a serial order of the runs they still may."""
    app = made(COUNTER + source, ("both", "a", "a"))
    found = app.explore(serial=True)
    assert found.explored > 1
    assert found.explored == found.serial_orders
    again = app.app.perform(["a"], "1:1.1,1:2.1,1:1.2,1:2.2")
    assert [e.outcome.value for e in again.endings if e.outcome] == ["[1,1]"]
    apart = app.app.perform(["a"], "1:1.1,1:1.2")
    assert [e.outcome.value for e in apart.endings if e.outcome] == ["[1,2]"]


def test_a_lost_update_is_what_no_serial_order_does(made: Any) -> None:
    app = made(COUNTER, ("child", "a"), ("child", "a"), ("child", "b"))
    found = app.explore(serial=True, preemptions=None)
    assert set(found.by_name) == {"not serial"}
    worst = found.worst
    assert worst is not None
    assert worst.serial is False
    text = "\n".join(worst.explanation)
    assert "Then it ends as no serial order of the runs does," in text
    assert text.count("comes before") == 2
    assert app.app.perform(app.names, str(worst.schedule), options=Options(serial=True)).serial is False
    assert app.app.perform(app.names, "1x2,2x2", options=Options(serial=True)).serial is True


RETRY = """
    @transaction
    def setup(conn) -> None:
        conn.execute("create table seat (number integer primary key, guest text unique)")

    @transaction
    def free(conn) -> int:
        return conn.value("select count(*) from seat") + 1

    @transaction
    def take(conn, number: int, guest: str) -> None:
        conn.execute("insert into seat values (:number, :guest)", number=number, guest=guest)

    @workflow
    def reserve(guest: str) -> int:
        for _ in range(4):
            try:
                number = free()
                take(number, guest)
                return number
            except Exception:
                continue
        raise RuntimeError("full")
"""


def test_bodies_that_raise_in_some_schedules_and_are_tried_again(made: Any) -> None:
    """Taking a taken seat fails, and the guest tries again: whatever the schedule, all are seated as in some serial order."""
    app = made(RETRY, ("reserve", "x"), ("reserve", "y"), ("reserve", "z"))
    found = app.explore(serial=True, preemptions=None)
    assert found.clean
    assert any(len(path) > 6 for path in [app.app.perform(app.names, "1,2,3,1,2,3").taken])


def test_a_schedule_that_does_not_end_is_given_up(made: Any) -> None:
    forever = RETRY.replace("for _ in range(4)", "while True").replace("number = free()", "number = 1")
    app = made(forever, ("reserve", "x"))
    app.names.append("b")
    app.app.start("reserve", "y", run="b").cancel()
    found = app.explore(longest=30)
    assert found.given_up > 0
    assert not found.clean


def test_the_budget_is_said(made: Any) -> None:
    shop = made(SHOP, *[("checkout", item) for item in ("apple", "pear", "apple", "pear")])
    found = shop.explore(schedules=3, steps={"charge": StepPolicy(Unrecorded.MOCK)})
    assert (found.explored, found.exhausted, found.all_serial, found.clean) == (3, "3 schedules", False, False)


def test_the_same_seed_explores_in_the_same_order(made: Any) -> None:
    shop = made(SHOP, *[("checkout", "apple")] * 3)
    plays = [shop.explore(seed=seed, schedules=9, steps={"charge": StepPolicy(Unrecorded.MOCK)}) for seed in (5, 5)]
    assert [str(p.worst.schedule) for p in plays if p.worst] == [str(plays[0].worst.schedule)] * 2
    assert plays[0].executed == plays[1].executed


def test_a_body_that_is_not_a_function_of_its_arguments_is_told(made: Any) -> None:
    """It counts in the module how often it was called, so an equivalent schedule is not equivalent."""
    source = (
        COUNTER
        + """
    calls = []

    @transaction
    def count(conn, name: str) -> int:
        calls.append(name)
        conn.execute("update counter set n = n + :n where name = :name", name=name, n=len(calls))
        return len(calls)

    @workflow
    def twice(name: str) -> int:
        return count(name) + count(name)
    """
    )
    app = made(source, ("twice", "a"), ("twice", "a"))
    with pytest.raises(NotRepeatable, match="count"):
        app.explore(preemptions=None)


def test_schedules_are_read_as_they_are_written() -> None:
    schedule = Schedule((Turn(1), Turn(1), Turn(2, "1.2"), Turn(1)))
    assert str(schedule) == "1x2,2:1.2,1"
    assert Schedule.read(str(schedule), 2) == schedule


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("1,x", "'x' is no turn"),
        ("3", "it names run 3, and 2 are chosen"),
        ("1x9", "asks for no transaction"),
        ("1:7", "asks for 1:1 .check."),
    ],
)
def test_what_is_no_schedule_is_refused(made: Any, text: str, problem: str) -> None:
    shop = made(SHOP, ("checkout", "apple"), ("checkout", "pear"))
    with pytest.raises(BadSchedule, match=problem):
        shop.app.perform(shop.names, text)
    with pytest.raises(UnknownRun):
        shop.app.explore(["nobody"])


def test_somebody_may_stand_around_each_transaction(made: Any) -> None:
    """Where a debugger is to stand: it sees each transaction once, in the order of the schedule."""
    shop = made(SHOP, ("checkout", "apple"), ("checkout", "pear"))
    seen: list[str] = []

    def around(call: Any, work: Any) -> Any:
        seen.append(f"{call.run} {call.function.name}")
        return work()

    shop.app.perform(shop.names, "2,1x3", around=around)
    assert seen == ["b check", "a check", "a update", "a fulfil", "b update", "b fulfil"]


def test_the_database_is_not_touched(made: Any) -> None:
    shop = made(SHOP, ("checkout", "apple"), ("checkout", "apple"))
    before = shop.app.trace.last_version()
    shop.explore()
    assert shop.app.trace.last_version() == before
