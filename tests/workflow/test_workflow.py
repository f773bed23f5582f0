"""Workflows: each call once, numbered by the program, whatever ends first."""

from __future__ import annotations

import asyncio
import datetime
import threading
from pathlib import Path
from typing import Any

import pytest
from tests.kit import Crash, OutOfStock, Post, count, database, entries, opened, refuse, sql, steps, write

import retroact
from retroact import App, gather, gather_async, invariant, step, transaction, workflow
from retroact.errors import BadArguments, BadDeclaration, MisplacedCall, UnencodableResult, UnknownFunction


@workflow
def twice(entry: str) -> int:
    write(entry)
    return write(f"{entry}!")


@workflow
def fails(entry: str) -> None:
    write(entry)
    raise OutOfStock(entry)


def test_each_call_is_a_step(tmp_path: Path) -> None:
    with opened(tmp_path, twice) as app:
        assert app.run(twice, "a", run="r") == 2
        assert app.run("twice", entry="a", run="r") == 2
        assert entries(app) == ["a", "a!"]
        assert steps(app, "r") == [(1, "write"), (2, "write")]
        run = app.trace.run("r")  # pyright: ignore
        assert (run.state, run.outcome.value, run.arguments) == ("committed", "2", '{"entry":"a"}')  # pyright: ignore


# --- one after another, beside one another -------------------------------------------------------------------------------


def test_calls_are_numbered_by_the_program_not_by_who_ends_first(tmp_path: Path) -> None:
    second_is_done = threading.Event()

    @step
    def slow() -> str:
        assert second_is_done.wait(30)
        return "slow"

    @step
    def quick() -> str:
        return "quick"

    @workflow
    def both() -> list[str]:
        first = slow.start()
        second = quick.start()
        second.result()
        second_is_done.set()
        return gather(first, second)

    with opened(tmp_path, [slow, quick, both]) as app:
        assert app.run(both, run="r") == ["slow", "quick"]
        assert steps(app, "r") == [(1, "slow"), (2, "quick")]
        by_version = [record.function for record in app.trace.records_of("r")]  # pyright: ignore
        assert by_version == ["quick", "slow"]


@workflow
def parallel(entries: list[str]) -> list[int]:
    return gather(write.start(entry) for entry in entries)


@workflow
async def parallel_async(entries: list[str]) -> list[int]:
    return await asyncio.gather(*(write(entry) for entry in entries))  # pyright: ignore


@workflow
async def parallel_ours(entries: list[str]) -> list[int]:
    return await gather_async(*(write(entry) for entry in entries))  # pyright: ignore


@pytest.mark.parametrize("function", [parallel, parallel_async, parallel_ours])
def test_many_beside_one_another(tmp_path: Path, function: Any) -> None:
    names = [str(n) for n in range(12)]
    with opened(tmp_path, function) as app:
        assert sorted(app.run(function, names, run="r")) == list(range(1, 13))
        assert sorted(entries(app), key=int) == names
        recorded = {int(r.step): r.arguments for r in app.trace.records_of("r")}  # pyright: ignore
        assert recorded == {n + 1: f'{{"entry":"{n}"}}' for n in range(12)}
        assert app.run(function, names, run="r") == [int(x) for x in app.run(function, names, run="r")]


def test_a_failure_beside_others_lets_them_end(tmp_path: Path) -> None:
    @workflow
    def several() -> None:
        gather(write.start("a"), refuse.start("b"), write.start("c"))

    @workflow
    async def several_async() -> None:
        await asyncio.gather(write("d"), refuse("e"), write("f"))  # pyright: ignore

    with opened(tmp_path, several, several_async) as app:
        for function, names in ((several, "ac"), (several_async, "df")):
            with pytest.raises(OutOfStock):
                app.run(function)
            written = [e for e in entries(app) if e.strip("-") in names]
            assert sorted(written[:2]) == list(names)
            assert written[2:] == [f"-{names[1]}", f"-{names[0]}"]


def test_the_time_that_a_body_sees_is_the_same_from_the_record(tmp_path: Path) -> None:
    """`now()` moved while a call ran beside the body, so a resumed run could see another time than the first."""
    crash = [False, True]
    seen: list[datetime.datetime] = []

    @workflow
    def watches() -> None:
        seen.append(retroact.now())
        call = write.start("a")
        call.wait()  # pyright: ignore
        seen.append(retroact.now())
        call.result()
        seen.append(retroact.now())
        retroact.sleep(5)
        seen.append(retroact.now())
        seen.append(datetime.datetime.fromtimestamp(retroact.rng().random(), datetime.UTC))
        if crash.pop():
            raise Crash

    with opened(tmp_path, watches) as app:
        with pytest.raises(Crash):
            app.run(watches, run="r")
        app.resume("r").result()
    first, second = seen[:5], seen[5:]
    assert first == second
    assert first[0] == first[1]
    assert first[3] == first[0] + datetime.timedelta(seconds=5)


# --- def and async def ---------------------------------------------------------------------------------------------------


@transaction
async def write_async(conn: Any, entry: str) -> str:
    return await helper_async(conn, entry)


async def helper_async(conn: Any, entry: str) -> str:
    conn.execute("insert into ledger values (:entry)", entry=entry)
    return entry


@transaction
async def waits(conn: Any) -> None:
    conn.execute("insert into ledger values ('never')")
    await Pause()


class Pause:
    def __await__(self) -> Any:
        yield


@step
async def shout(text: str) -> str:
    await asyncio.wait_for(asyncio.get_running_loop().run_in_executor(None, str), 30)
    return text.upper()


@workflow
def plain_calls_async() -> list[str]:
    return [shout("a"), write_async("b"), *gather(shout.start("c"), write_async.start("d"))]  # pyright: ignore


@workflow
async def async_calls_plain() -> list[Any]:
    return [await shout("a"), await write_async("b"), await write("c"), await twice("d")]  # pyright: ignore


def test_both_worlds_call_each_other(tmp_path: Path) -> None:
    with opened(tmp_path, [write_async, waits, shout, plain_calls_async, async_calls_plain, twice]) as app:
        assert app.run(plain_calls_async) == ["A", "b", "C", "d"]
        assert app.run(async_calls_plain) == ["A", "b", 4, 6]
        assert app.run(write_async, "alone") == "alone"
        assert app.run(shout, "alone") == "ALONE"
        with pytest.raises(MisplacedCall, match="A transaction must not wait while it holds the database"):
            app.run(waits)
        assert "never" not in entries(app)


def test_a_handle_can_be_awaited(tmp_path: Path) -> None:
    async def main(app: App) -> int:
        return await app.start(twice, "a")

    with opened(tmp_path, twice) as app:
        assert asyncio.run(main(app)) == 2


def test_a_task_that_gives_up_waiting_does_not_undo_the_call(tmp_path: Path) -> None:
    """A timeout of the body's own cancelled the call's future: the call went on with nobody to tell, and outlived its run."""
    asked, go = threading.Event(), threading.Event()

    @step
    def slow() -> str:
        asked.set()
        assert go.wait(30)
        return "done"

    @workflow
    async def impatient() -> str:
        task = asyncio.ensure_future(slow())  # pyright: ignore
        await asyncio.get_running_loop().run_in_executor(None, asked.wait)
        task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            go.set()
            return "gave up"
        return "waited"

    with opened(tmp_path, [slow, impatient]) as app:
        assert app.run(impatient, run="r") == "gave up"
        assert steps(app, "r") == [(1, "slow")]


def test_waiting_in_an_event_loop_is_refused(tmp_path: Path) -> None:
    """`gather` in an `async def` workflow held up the loop on which the steps that it waited for were to run."""

    @workflow
    async def blocks() -> list[str]:
        return gather(shout.start("a"), shout.start("b"))  # pyright: ignore

    with opened(tmp_path, [blocks, shout]) as app, pytest.raises(MisplacedCall, match="await gather_async"):
        app.run(blocks)


# --- children ------------------------------------------------------------------------------------------------------------


@workflow
def family(entry: str) -> list[int]:
    return [twice(f"{entry}1"), twice(f"{entry}2")]


@workflow
def forgives(entry: str) -> str:
    try:
        fails(entry)
    except OutOfStock as error:
        return f"forgave {error}"
    return "nothing to forgive"


def test_a_child_is_a_run_of_its_own(tmp_path: Path) -> None:
    with opened(tmp_path, [family, twice]) as app:
        assert app.run(family, "a", run="r") == [2, 4]
        assert steps(app, "r") == [(1, "twice"), (2, "twice")]
        child = app.trace.run("r.2")  # pyright: ignore
        assert (child.function, child.parent, child.parent_step, child.state) == ("twice", "r", 2, "committed")
        assert app.handle("r.2").result() == 4


def test_a_failing_child_is_compensated_and_told(tmp_path: Path) -> None:
    with opened(tmp_path, [forgives, fails]) as app:
        assert app.run(forgives, "a", run="r") == "forgave a"
        assert entries(app) == ["a", "-a"]
        assert app.trace.run("r.1").state == "aborted"  # pyright: ignore


def test_children_beside_one_another(tmp_path: Path) -> None:
    @workflow
    def many() -> list[int]:
        return gather(twice.start(str(n)) for n in range(5))

    with opened(tmp_path, [many, twice]) as app:
        app.run(many, run="r")
        assert sorted(entries(app)) == sorted([str(n) for n in range(5)] + [f"{n}!" for n in range(5)])


# --- transactions inside transactions --------------------------------------------------------------------------------------


@transaction
def writes_both(conn: Any, one: str, other: str) -> int:
    write(one)
    return write(other)


@transaction
def writes_and_refuses(conn: Any, entry: str) -> None:
    write(entry)
    refuse(entry)


@transaction
def catches(conn: Any, entry: str) -> str:
    try:
        refuse(entry)
    except OutOfStock:
        return "caught"
    return "not refused"


@transaction(read_only=True)
def reads_and_writes(conn: Any) -> None:
    write("never")


def test_a_transaction_inside_a_transaction_joins_it(tmp_path: Path) -> None:
    with opened(tmp_path, [writes_both, writes_and_refuses, catches, reads_and_writes]) as app:
        before = app.trace.last_version()
        assert app.run(writes_both, "a", "b") == 2
        assert app.trace.last_version() == before + 1
        with pytest.raises(OutOfStock):
            app.run(writes_and_refuses, "c")
        assert entries(app) == ["a", "b"]
        assert app.run(catches, "d") == "caught"
        assert entries(app) == ["a", "b", "d"]
        with pytest.raises(retroact.RetroactError, match="is declared read_only and tried to write"):
            app.run(reads_and_writes)


# --- misuse --------------------------------------------------------------------------------------------------------------


@invariant
def holds(conn: Any) -> bool:
    return True


@step
def leaf() -> None: ...


@transaction
def in_transaction(conn: Any, what: str) -> Any:
    return MISUSES[what]()


@step
def in_step(what: str) -> Any:
    return MISUSES[what]()


@step
async def in_async_step(what: str) -> Any:
    return MISUSES[what]()


@workflow
def in_workflow(what: str) -> Any:
    return MISUSES[what]()


@workflow
def around(where: str, what: str) -> Any:
    return {"transaction": in_transaction, "step": in_step, "async step": in_async_step}[where](what)


MISUSES: dict[str, Any] = {
    "transaction": lambda: write("never"),
    "start transaction": lambda: write.start("never"),
    "step": leaf,
    "start step": leaf.start,
    "workflow": lambda: twice("never"),
    "start workflow": lambda: twice.start("never"),
    "invariant": holds,
    "start invariant": lambda: holds.start().result(),
    "sleep": lambda: retroact.sleep(1),
    "app.run": lambda: APPS[0].run(write, "never"),
    "app.start": lambda: APPS[0].start(write, "never"),
}
APPS: list[App] = []
IN_TRANSACTION = [what for what in MISUSES if what not in ("transaction", "invariant")]
WRONG = [
    *((in_transaction, (what,)) for what in IN_TRANSACTION),
    *((around, ("transaction", what)) for what in IN_TRANSACTION),
    *((in_step, (what,)) for what in MISUSES),
    *((around, ("async step", what)) for what in MISUSES),
    *((in_workflow, (what,)) for what in ("invariant", "start invariant", "app.run", "app.start")),
]


@pytest.fixture(scope="module")
def misused(engine: str, tmp_path_factory: pytest.TempPathFactory) -> Any:
    functions = [in_transaction, in_step, in_async_step, in_workflow, around, leaf, twice, holds]
    with opened(tmp_path_factory.mktemp("misuse"), functions) as app:
        APPS[:] = [app]
        yield app
        APPS.clear()


@pytest.mark.parametrize(("function", "arguments"), WRONG)
def test_nested_misuse_says_what_to_do(misused: App, function: Any, arguments: tuple[str, ...]) -> None:
    with pytest.raises(MisplacedCall) as refused:
        misused.run(function, *arguments)
    assert "was called inside" in str(refused.value)
    assert len(str(refused.value.details["remedy"])) > 20
    assert entries(misused) == []


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda app: app.run("nothing"), UnknownFunction, "No function named 'nothing'"),
        (lambda app: app.run(refuse.body, "a"), UnknownFunction, "No function named"),
        (lambda app: app.run(transaction(name="write")(leaf.body)), UnknownFunction, "another version"),
        (lambda app: app.run(write), BadArguments, r"missing entry. It takes write\(entry: str\)"),
        (lambda app: app.run(write, 5), BadArguments, "Expected `str`, got `int`"),
        (lambda app: app.start(write, "a", "b"), BadArguments, "too many arguments"),
        (lambda app: app.run(write, entries="a"), BadArguments, "unknown field|missing entry"),
        (lambda app: app.run(holds), BadDeclaration, "an invariant is checked, not run"),
    ],
)
def test_bad_requests(misused: App, call: Any, error: type[Exception], message: str) -> None:
    runs = sql(misused, "select count(*) from retroact_runs")
    with pytest.raises(error, match=message):
        call(misused)
    assert sql(misused, "select count(*) from retroact_runs") == runs


@transaction
def writes_nonsense(conn: Any) -> int:
    write("never")
    return object()  # pyright: ignore


@workflow
def returns_nonsense() -> int:
    write("a")
    return "no number"  # pyright: ignore


@workflow
def calls_badly() -> str:
    try:
        write(5)  # pyright: ignore
    except BadArguments:
        write("caught")
    return "caught"


def test_what_cannot_be_recorded_is_rolled_back(tmp_path: Path) -> None:
    with opened(tmp_path, [writes_nonsense, returns_nonsense, calls_badly]) as app:
        with pytest.raises(UnencodableResult, match=r"writes_nonsense returned <object.*cannot be recorded as int"):
            app.run(writes_nonsense)
        assert entries(app) == []
        with pytest.raises(UnencodableResult):
            app.run(returns_nonsense)
        assert entries(app) == ["a", "-a"]
        assert app.run(calls_badly, run="r") == "caught"
        assert steps(app, "r") == [(1, "write")]


def test_a_call_of_what_is_not_registered_stops_the_run(tmp_path: Path) -> None:
    """It went through, without its code in the trace, and what compensates it was silently left out."""
    with App(database(tmp_path), [twice]) as app:
        with pytest.raises(UnknownFunction, match=r"No function named 'write' is registered\. Known functions: (holds, )?twice"):
            app.run(twice, "a", run="r")
        assert app.trace.run("r").state == "stopped"  # pyright: ignore
    with opened(tmp_path, [twice], recover=False) as app:
        assert app.resume("r").result() == 2


# --- what is no Exception ------------------------------------------------------------------------------------------------


#: What the next of these bodies raises.
STRIKES: list[BaseException] = []


def strike() -> None:
    if STRIKES:
        raise STRIKES.pop()


@transaction
def struck(conn: Any) -> str:
    conn.execute("insert into ledger values ('struck')")
    strike()
    return "transaction"


@step
def struck_step() -> str:
    strike()
    return "step"


@step
async def struck_async() -> str:
    strike()
    return "async"


@workflow
def calls_struck(which: int) -> str:
    write("before")
    return (struck, struck_step, struck_async)[which]()  # pyright: ignore


@workflow
async def calls_struck_async(which: int) -> str:
    await write("before")  # pyright: ignore
    return await (struck, struck_step, struck_async)[which]()  # pyright: ignore


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, Crash])
def test_an_interrupt_leaves_a_usable_app(tmp_path: Path, error: type[BaseException]) -> None:
    """SystemExit in an `async def` step stopped the event loop: whoever waited for it, or came after, waited for ever."""
    alone = [struck, struck_step, struck_async]
    answers = ["transaction", "step", "async"]
    with opened(tmp_path, [*alone, calls_struck, calls_struck_async]) as app:
        for function in (calls_struck, calls_struck_async):
            for which, answer in enumerate(answers):
                run = f"{function.name}-{which}"
                STRIKES[:] = [error()]
                with pytest.raises(error):
                    app.run(function, which, run=run)
                assert app.trace.run(run).state == "running"  # pyright: ignore
                assert app.resume(run).result(30) == answer
        for function, answer in zip(alone, answers, strict=True):
            STRIKES[:] = [error()]
            with pytest.raises(error):
                app.run(function, run=function.name)
            assert app.run(function, run=function.name) == answer  # pyright: ignore
        assert (entries(app).count("before"), entries(app).count("struck")) == (6, 3)


# --- what it costs -------------------------------------------------------------------------------------------------------


@workflow
def three(entry: str) -> int:
    write(f"{entry}1")
    write(f"{entry}2")
    return write(f"{entry}3")


@workflow
def three_and_reads(entry: str) -> int:
    write(f"{entry}1")
    count()
    write(f"{entry}2")
    return write(f"{entry}3")


@workflow
def reads_three_times(entry: str) -> int:
    return count() + count() + count()


@workflow
def writes_then_sends(entry: str) -> str:
    write(entry)
    write(entry)
    return leaf() or "sent"  # pyright: ignore


@pytest.mark.parametrize(("function", "commits"), [(three, 3), (three_and_reads, 3), (reads_three_times, 2), (writes_then_sends, 3)])
def test_what_a_workflow_costs(tmp_path: Path, function: Any, commits: int) -> None:
    """Its start rides in its first transaction and its end in its last. (A machine that stalls for 5 ms just there adds one commit,
    hence the least of several.) Where there is nothing but reading, the first read carries the start, and the end comes alone."""
    with opened(tmp_path, [function, leaf]) as app:
        costs: list[int] = []
        for n in range(12):
            before = app.engine.commits
            app.run(function, str(n))
            app.engine.settle()
            costs.append(app.engine.commits - before)
        assert min(costs[1:]) == commits


def test_what_a_step_is_told_has_been_recorded(tmp_path: Path) -> None:
    """A step was carried out before its run, or a read that its argument came from, was durable: after a crash the run was gone, or
    the step was sent again with another argument under the same key."""
    recorded: list[Any] = []
    post = Post()

    @step
    def look() -> None:
        recorded.append(sql(APPS[0], "select run, step, function from retroact_records where run in ('a', 'b') order by 1, 2"))
        recorded.append(sql(APPS[0], "select run, state from retroact_runs where run in ('a', 'b') order by 1"))

    @workflow
    def begins_with_a_step() -> None:
        look()

    @workflow
    def reads_first() -> None:
        write("a")
        count()
        look()

    with opened(tmp_path, [look, begins_with_a_step, reads_first, post.step()]) as app:
        APPS[:] = [app]
        app.run(begins_with_a_step, run="a")
        app.run(reads_first, run="b")
    assert recorded[:2] == [[], [("a", "running")]]
    assert recorded[2] == [("a", 1, "look"), ("b", 1, "write"), ("b", 2, "count")]
