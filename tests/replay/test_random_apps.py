"""Whatever the application: what eight callers did at once is done again, identically, and every past state is what it was."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.replay.random_app import dump, live, module_of, sources

from retroact import App
from retroact.engine.contract import History as Past
from retroact.engine.sqlite.history import History
from retroact.replay.divergence import Verdict
from retroact.replay.replayer import Replayer, invocation_of
from retroact.replay.shelf import Shelf
from retroact.trace.record import Record

COMMON = {"deadline": None, "suppress_health_check": list(HealthCheck), "database": None, "print_blob": True}


def check(source: str, seed: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with module_of(folder, source) as module:
            with App(folder / "test.db", module) as app:
                live(app, module, seed)
            history = History(folder / "test.db")
            shelf = Shelf(history.trace)
            try:
                records = list(history.trace.records_between(0, history.trace.verify()))
                assert not list(history.pages.verify())
                chosen = random.Random(seed)
                replays(history, shelf, records)
                replays(history, shelf, [record for record in records if chosen.random() < 0.4])
                replays(history, shelf, records[len(records) // 2 :])
                states(history, shelf, records)
            finally:
                shelf.close()
                history.close()


def replays(history: Past, shelf: Shelf, records: list[Record]) -> None:
    """Nothing differs, be it all transactions or some of them between the recorded effects of the others."""
    report = Replayer(history, shelf).replay(records)
    for replayed in report.transactions:
        if replayed.verdict is Verdict.ORDER_ONLY:
            assert any("order by" not in s.sql for s in replayed.record.statements)
        else:
            told = replayed.divergence.explain(replayed.record) if replayed.divergence else replayed.reason
            assert replayed.verdict is Verdict.IDENTICAL, told


def states(history: Past, shelf: Shelf, records: list[Record]) -> None:
    """Each version opened from the page log (and from there row by row) is what executing everything from the beginning gives.

    The two ways have nothing in common: one applies recorded bytes and rows, the other runs bodies.
    """
    executed = history.at(0)
    for record in records:
        executed.attempt(invocation_of(record, shelf.function(record)), record.began_us, f"{record.run}/{record.step}/{record.function}")
        executed.keep()
        opened = history.at(record.version)
        assert dump(opened) == dump(executed), f"version {record.version}: {record.function} {record.arguments}"
        opened.close()


@settings(max_examples=12, **COMMON)
@given(sources, st.integers(0, 2**16))
def test_any_application_replays_identically(source: str, seed: int) -> None:
    check(source, seed)


@pytest.mark.long
@pytest.mark.timeout(3600)
@settings(max_examples=400, **COMMON)
@given(sources, st.integers(0, 2**16))
def test_very_many_applications_replay_identically(source: str, seed: int) -> None:
    check(source, seed)
