"""Whatever the application, whatever is chosen: from the file it replays identically, and its states are those of home."""

from __future__ import annotations

import dataclasses
import random
import re
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.replay.random_app import dump, live, module_of, sources

from retroact import App
from retroact.engine.sqlite.history import History
from retroact.engine.sqlite.portable import file
from retroact.errors import CannotRedact, NotExported
from retroact.function.registry import Registry
from retroact.portable import ExportOptions, export, not_identical, open_portable
from retroact.replay.divergence import Verdict
from retroact.replay.shelf import Shelf
from retroact.retroaction.retroactor import Retroactor

COMMON = {"deadline": None, "suppress_health_check": list(HealthCheck), "database": None, "print_blob": True}


def check(source: str, seed: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with module_of(folder, source) as module, App(folder / "test.db", module) as app:
            live(app, module, seed, callers=5)
        chance = random.Random(seed)
        home = History(folder / "test.db")
        try:
            runs = [run.run for run in home.trace.runs()]
            for number, most in enumerate((1, 3, len(runs))):
                chosen = chance.sample(runs, most)
                comes_back(home, chosen, folder / f"{number}.retro", ExportOptions(whole=number == 0))
        finally:
            home.close()


def comes_back(home: History, chosen: list[str], path: Path, options: ExportOptions) -> None:
    exported = export(home.path, chosen, path, options)
    assert exported.faithful, exported.told
    with open_portable(path) as past:
        assert list(past.chosen) == chosen
        report = past.replay()
        assert {t.verdict for t in report.transactions} <= {Verdict.IDENTICAL, Verdict.ORDER_ONLY}
        assert past.replay([run.run for run in past.runs()]).faithful
        for version in range(exported.base, exported.last + 1, 5):
            here, there = past.history.at(version), home.at(version)
            try:
                assert dump(here) == dump(there)
            except NotExported:
                assert not options.whole
            here.close()
            there.close()


@settings(max_examples=5, **COMMON)
@given(sources, st.integers(0, 2**16))
def test_any_application_comes_back_from_the_file(source: str, seed: int) -> None:
    check(source, seed)


@pytest.mark.long
@pytest.mark.timeout(3600)
@settings(max_examples=200, **COMMON)
@given(sources, st.integers(0, 2**16))
def test_very_many_applications_come_back(source: str, seed: int) -> None:
    check(source, seed)


def check_changed(source: str, seed: int) -> None:
    """Other code over the same past: from the file it makes the difference that it makes at home, or says what it would need."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with module_of(folder, source) as module, App(folder / "test.db", module) as app:
            live(app, module, seed, callers=3)
        home = History(folder / "test.db")
        try:
            runs = random.Random(seed).sample([run.run for run in home.trace.runs() if run.run != "create"], 4)
            export(home.path, runs, folder / "x.retro")
            with module_of(folder, rotated(source)) as other, open_portable(folder / "x.retro") as past:
                changed = Registry.of(other)
                for full in (False, True):
                    expected = Retroactor(home, Shelf(home.trace), changed, full=full).run(past.chosen)
                    try:
                        found = past.retroact(changed, full=full)
                    except NotExported:
                        continue
                    assert dataclasses.replace(found, seconds=0.0) == dataclasses.replace(expected, seconds=0.0)
        finally:
            home.close()


def rotated(source: str) -> str:
    """The same functions, each with the body of the next."""
    count = source.count("def f")
    return re.sub(r"def f(\d+)\(", lambda m: f"def f{(int(m[1]) + 1) % (count - 1)}(", source)


@settings(max_examples=5, **COMMON)
@given(sources, st.integers(0, 2**16))
def test_changed_code_never_gets_a_wrong_answer(source: str, seed: int) -> None:
    check_changed(source, seed)


@pytest.mark.long
@pytest.mark.timeout(3600)
@settings(max_examples=200, **COMMON)
@given(sources, st.integers(0, 2**16))
def test_changed_code_never_gets_a_wrong_answer_in_very_many_applications(source: str, seed: int) -> None:
    check_changed(source, seed)


UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}")


def check_redacted(source: str, seed: int) -> None:
    """Keys of t0 are long and made by chance, or a letter. The former are in no file; what does not replay is what was told."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with module_of(folder, source) as module, App(folder / "test.db", module) as app:
            live(app, module, seed, callers=3)
        home = History(folder / "test.db")
        try:
            runs = [run.run for run in home.trace.runs()]
            changes = [c for r in home.trace.records_between(0, home.trace.last_version()) for c in r.changes if c.table == "t0"]
            secrets = {str((c.after or {}).get("k")) for c in changes}
            for number, redact in enumerate((("t0.k",), ("t0.k", "t1.k", "log.k", "child.p"))):
                path = folder / f"{number}.retro"
                try:
                    exported = export(home.path, random.Random(seed).sample(runs, 5), path, ExportOptions(redact=redact))
                except CannotRedact:  # it was copied into a column that is not named
                    assert not path.exists()
                    continue
                content = b"".join(file.read(path).values()).decode(errors="replace")
                assert not set(UUID.findall(content)) & secrets
                with open_portable(path) as past:
                    assert not_identical(past.replay()) == list(exported.told)
        finally:
            home.close()


@settings(max_examples=5, **COMMON)
@given(sources, st.integers(0, 2**16))
def test_any_application_keeps_its_secrets(source: str, seed: int) -> None:
    check_redacted(source, seed)


@pytest.mark.long
@pytest.mark.timeout(3600)
@settings(max_examples=200, **COMMON)
@given(sources, st.integers(0, 2**16))
def test_very_many_applications_keep_their_secrets(source: str, seed: int) -> None:
    check_redacted(source, seed)
