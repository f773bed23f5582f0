"""What exploration leaves out makes no difference: on programs made up by chance it finds every end that brute force finds.

The programs are those of the replay tests (rowids, AUTOINCREMENT, triggers, cascades, upserts, statements that fail and are forgiven,
bodies that raise, unordered results), as runs of up to three transactions each.
"""

from __future__ import annotations

import contextlib
import random
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.replay.random_app import EXTRAS, LINES, TABLES, _source, module_of
from tests.retroaction.brute_force import BruteForce

from retroact import App
from retroact.replay.shelf import Shelf
from retroact.retroaction.exploration import Options
from retroact.retroaction.ground import Ground
from retroact.retroaction.search import Search
from retroact.retroaction.setting import prepare
from retroact.trace.record import RunId

WORKFLOW = """

from retroact import workflow


@workflow
def several(calls: list[list[Any]]) -> Any:
    results = []
    for name, a, b in calls:
        try:
            results.append(globals()[name](a, b))
        except Exception as error:
            results.append(type(error).__name__)
            if a % 3 == 0:
                raise
    return results
"""


def ends(app: App, runs: list[str], options: Options) -> set[Any]:
    """What an exploration finds to be the ends of all schedules."""
    app._catch_up()
    shelf = Shelf(app.history.trace, app.registry)
    setting = prepare(app.history, shelf, [RunId(run) for run in runs], None, {})
    branch = app.history.at(setting.version)
    nest = branch.nest()
    found = Search(Ground(nest, setting.moment, ()), setting.places, options).run()
    assert found.exhausted is None
    nest.close()
    branch.close()
    shelf.close()
    return found.ends


def recorded(app: App, module: ModuleType, seed: int, sizes: list[int]) -> list[str]:
    """Runs of so many transactions each, recorded one after the other."""
    functions = [name for name in vars(module) if name[0] == "f" and name[1:].isdigit()]
    chance = random.Random(seed)
    app.run(module.create, run="create")
    for name, size in [("before", 4), *((f"r{number}", size) for number, size in enumerate(sizes))]:
        calls = [[chance.choice(functions), chance.randrange(8), chance.choice("abc")] for _ in range(size)]
        with contextlib.suppress(Exception):  # its outcome, whatever it is
            app.run("several", calls, run=name)
    return [f"r{number}" for number in range(len(sizes))]


def compare(folder: Path, source: str, seed: int, sizes: list[int], bounds: tuple[int | None, ...], *, merge: bool = False) -> None:
    with module_of(folder, source + WORKFLOW) as module, App(folder / f"{module.__name__}.db", module) as app:
        runs = recorded(app, module, seed, sizes)
        for bound in bounds:
            brute = BruteForce(app, runs, preemptions=bound, merge=merge)
            found = ends(app, runs, Options(preemptions=bound, serial=True, seconds=600, schedules=10**9, seed=seed))
            assert found == brute.ends, f"bound {bound}: {len(found)} ends of {len(brute.ends)} in {brute.count} interleavings"


#: Bodies of few statements: those of many scan everything, and then everything depends on everything.
lines = st.lists(st.tuples(st.sampled_from(LINES), st.sampled_from(["t0", "t1"])), min_size=1, max_size=2)
sources = st.builds(
    _source,
    st.tuples(st.sampled_from(TABLES), st.sampled_from(TABLES)),
    st.lists(st.sampled_from(EXTRAS), unique=True, max_size=2),
    st.lists(lines, min_size=2, max_size=5),
)
sizes = st.sampled_from([[3, 3], [2, 2, 2], [3, 2, 1], [1, 1, 1, 1], [3, 2, 2], [2, 1, 1, 1]])


INVISIBLE = _source(
    (TABLES[0], TABLES[6]),
    [],
    [
        [("v = len(conn.rows('select * from {t}'))", "t0")],
        [("v = conn.execute('insert into {t} (k, n) values (:u, :a)', a=a, u=str(uuid()))", "t1")],
    ],
)


def test_rows_that_the_hook_does_not_show_are_numbered_all_the_same(tmp_path: Path) -> None:
    """A table with a VIRTUAL generated column: that two inserts into it get their numbers from each other was not noted."""
    compare(tmp_path, INVISIBLE, 0, [3, 3], (None,))


UNORDERED = _source(
    (TABLES[3], TABLES[0]),
    [],
    [
        [("v = [r.k for r in conn.rows('select k, n from {t}')]", "t0")],
        [("v = conn.execute('insert or ignore into {t} (k, n) values (:b, :a)', a=a, b=b)", "t0")],
        [("v = conn.execute('insert into {t} (k, n) values (:b, :a)', a=a, b=b)", "t0")],
        [("v = conn.execute('insert into {t} (k, n) values (:u, :a)', a=a, u=str(uuid()))", "t0")],
    ],
)


@pytest.mark.parametrize("seed", range(6))
def test_who_sees_rows_unordered_sees_who_came_first(tmp_path: Path, seed: int) -> None:
    """Inserts of different keys commute, until somebody looks at the rows in the order of their hidden numbers."""
    compare(tmp_path, UNORDERED, seed, [2, 2, 1], (None,))


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], print_blob=True)
@given(source=sources, seed=st.integers(0, 999), sizes=sizes)
def test_every_end_that_brute_force_finds_is_found(tmp_path: Path, source: str, seed: int, sizes: list[int]) -> None:
    compare(tmp_path, source, seed, sizes, (None, 1))


@pytest.mark.long
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], print_blob=True)
@given(source=sources, seed=st.integers(0, 999), sizes=sizes)
def test_every_end_is_found_in_many_programs(tmp_path: Path, source: str, seed: int, sizes: list[int]) -> None:
    compare(tmp_path, source, seed, sizes, (None, 0, 1, 2))


@pytest.mark.long
@settings(max_examples=3, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], print_blob=True)
@given(source=sources, seed=st.integers(0, 999), sizes=st.just([3, 3, 3, 3]))
def test_every_end_of_four_runs_of_three_transactions_is_found(tmp_path: Path, source: str, seed: int, sizes: list[int]) -> None:
    compare(tmp_path, source, seed, sizes, (None,), merge=True)


BESIDE = """
from retroact import gather, gather_async, now, transaction, workflow


@transaction
def create(conn) -> None:
    conn.execute("create table counter (name text primary key, n integer not null)")
    conn.execute("insert into counter values ('a', 0), ('b', 0)")


@transaction
def read(conn, name: str) -> int:
    return conn.value("select n from counter where name = :name", name=name)


@transaction
def write(conn, name: str, n: int) -> int:
    if n == 2:
        raise ValueError(name)
    return conn.execute("update counter set n = :n where name = :name", name=name, n=n)


@write.compensation
def unwrite(conn, name: str, n: int) -> None:
    conn.execute("update counter set n = n + 10 where name = :name", name=name)


@workflow
def child(name: str) -> int:
    try:
        n = read(name)
        write(name, n + 1)
        return n + 1
    finally:
        read(name)


@workflow
def beside(first: str, second: str) -> list[int]:
    return gather(child.start(first), write.start(second, 7))


@workflow
async def awaited(first: str, second: str) -> str:
    found = await gather_async(child(first), write(second, 5))
    return str((found, now()))
"""


@pytest.mark.parametrize("names", [("beside", "beside"), ("awaited", "beside"), ("awaited", "child")], ids="+".join)
def test_calls_beside_one_another_children_compensations_and_finally(tmp_path: Path, names: tuple[str, str]) -> None:
    with module_of(tmp_path, BESIDE) as module, App(tmp_path / "beside.db", module) as app:
        app.run("create")
        for run, name in zip("xy", names, strict=True):
            with contextlib.suppress(ValueError):
                app.run(name, *(["a"] if name == "child" else ["a", "b"]), run=run)
        for bound in (None, 1):
            brute = BruteForce(app, ["x", "y"], preemptions=bound)
            assert ends(app, ["x", "y"], Options(preemptions=bound, serial=True, seconds=600)) == brute.ends
            assert len(brute.ends) > 1
