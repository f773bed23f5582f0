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
from tests.replay.random_app import module_of, sources
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


def compare(folder: Path, source: str, seed: int, sizes: list[int], bounds: tuple[int | None, ...]) -> None:
    with module_of(folder, source + WORKFLOW) as module, App(folder / f"{module.__name__}.db", module) as app:
        runs = recorded(app, module, seed, sizes)
        for bound in bounds:
            brute = BruteForce(app, runs, preemptions=bound)
            found = ends(app, runs, Options(preemptions=bound, serial=True, seconds=600, schedules=10**9, seed=seed))
            assert found == brute.ends, f"bound {bound}: {len(found)} ends of {len(brute.ends)} in {brute.count} interleavings"


sizes = st.sampled_from([[3, 3], [2, 2, 2], [3, 2, 1], [1, 1, 1, 1], [3, 2, 2], [2, 1, 1, 1]])


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
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], print_blob=True)
@given(source=sources, seed=st.integers(0, 999), sizes=st.just([3, 3, 3, 3]))
def test_every_end_of_four_runs_of_three_transactions_is_found(tmp_path: Path, source: str, seed: int, sizes: list[int]) -> None:
    compare(tmp_path, source, seed, sizes, (None,))
