"""A sample of the transactions is executed a second time, and what is not deterministic is told, to everybody but the caller."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
from tests.replay import planted

from retroact import App
from retroact.engine.sqlite.trace_reader import TraceReader
from retroact.errors import BadDeclaration
from retroact.function.code import load_path, unload
from retroact.replay import verifier
from retroact.replay.verifier import sampled
from retroact.testing import ManualClock
from retroact.trace.record import Hashing, RunId

FINE = 10


def lived(app: App) -> None:
    app.run(planted.create, run="create")
    for n in range(FINE):
        app.run(planted.pay, n, run=f"pay-{n}")
        app.run(planted.draw, run=f"draw-{n}")
    with pytest.raises(Exception, match="UNIQUE"):
        app.run(planted.refuse, run="refused")


def test_what_is_deterministic_is_found_to_be(tmp_path: Path) -> None:
    with App(tmp_path / "test.db", planted, verify_rate=1) as app:
        lived(app)
        found = app.verify()
        assert (found.checked, found.left_out, found.diverged) == (2 * FINE + 2, 0, ())


@pytest.mark.parametrize(("function", "statement"), [("count_on_a_global", 2), ("branch_on_a_global", None), ("return_a_global", None)])
def test_what_is_not_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture, function: str, statement: int | None) -> None:
    with App(tmp_path / "test.db", planted, verify_rate=1, clock=ManualClock()) as app, caplog.at_level(logging.WARNING):
        app.run(planted.create)
        app.run(function, run="this-one")
        before = next(planted.COUNTER)
        found = app.verify()
        assert next(planted.COUNTER) == before + 1  # what the application sees of its globals was left alone
        (divergence,) = found.diverged
        assert (divergence.run, divergence.function) == ("this-one", function)
        assert statement in (None, divergence.statement)
        assert "Then T diverged at" in divergence.explanation
        assert f"{function} is not deterministic" in caplog.text
        assert app.verifications == found
    reader = TraceReader(tmp_path / "test.db")  # as another process does
    stored = reader.verified()
    reader.close()
    assert stored is not None
    assert [each.run for each in stored.diverged] == ["this-one"]


def test_closing_verifies_what_waits(tmp_path: Path) -> None:
    with App(tmp_path / "test.db", planted, verify_rate=1) as app:
        lived(app)
    with App(tmp_path / "test.db", planted) as app:
        assert app.verifications.checked == 2 * FINE + 2
        with pytest.raises(BadDeclaration, match="without verify_rate"):
            app.verify()


def test_the_next_process_goes_on_where_the_last_one_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verifier, "LAST_SECONDS", 0.0)
    monkeypatch.setattr(verifier, "LOOK_SECONDS", 3600.0)
    with App(tmp_path / "test.db", planted, verify_rate=1) as app:
        app.run(planted.create)
        app.verify()
        lived_on = [app.run(planted.draw, run=f"draw-{n}") for n in range(5)]
    assert len(lived_on) == 5
    with App(tmp_path / "test.db", planted, verify_rate=1) as app:
        assert app.verifications.checked < 6
        assert app.verify().checked == 6


def test_more_than_it_can_do_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verifier, "MOST_WAITING", 3)
    monkeypatch.setattr(verifier, "LOOK_SECONDS", 3600.0)
    with App(tmp_path / "test.db", planted, verify_rate=1) as app:
        lived(app)
        found = app.verify()
        assert (found.checked, found.left_out) == (3, 2 * FINE - 1)


def test_code_that_is_not_at_hand_is_left_out(tmp_path: Path) -> None:
    names: dict[str, Any] = {"__name__": "nowhere"}
    exec("from retroact import transaction\n@transaction\ndef nowhere(conn) -> int:\n    return conn.value('select 1')\n", names)
    with App(tmp_path / "test.db", names["nowhere"], verify_rate=1) as app:
        app.run("nowhere")
        found = app.verify()
        assert (found.checked, found.left_out) == (0, 1)


def test_the_order_of_sets_in_another_process_is_no_divergence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a process with another hash seed has left to be verified would differ for that reason alone."""
    monkeypatch.setattr(verifier, "LOOK_SECONDS", 3600.0)
    with App(tmp_path / "test.db", planted, verify_rate=1) as app:
        app.run(planted.create)
        app.run(planted.return_a_global)
        app.run(planted.pay, 1)
        monkeypatch.setattr(verifier, "present_hashing", lambda: Hashing(seed=None, probe=0))
        found = app.verify()
        assert (found.checked, found.left_out, found.diverged) == (2, 1, ())


def test_reads_and_workflows_are_verified_too(tmp_path: Path) -> None:
    path = tmp_path / "shop.py"
    path.write_text(
        "from retroact import transaction, workflow, step\n"
        "@transaction\ndef create(conn) -> None:\n    conn.execute('create table t (n)')\n"
        "@transaction(read_only=True)\ndef look(conn) -> int:\n    return conn.value('select count(*) from t')\n"
        "@transaction\ndef put(conn, n: int) -> None:\n    conn.execute('insert into t values (:n)', n=n)\n"
        "@step\ndef outside() -> int:\n    return 5\n"
        "@workflow\ndef flow() -> int:\n    put(look() + outside())\n    return look()\n"
    )
    module = load_path(path)
    with App(tmp_path / "test.db", module, verify_rate=1) as app:
        app.run("create")
        assert [app.run("flow") for _ in range(3)] == [1, 2, 3]
        found = app.verify()
        assert (found.checked, found.diverged) == (1 + 3 * 3, ())
    unload(module)


def test_the_sample_follows_from_the_run(tmp_path: Path) -> None:
    runs = [RunId(f"run-{n}") for n in range(20_000)]
    share = sum(sampled(run, 0.1) for run in runs) / len(runs)
    assert 0.09 < share < 0.11
    assert {run for run in runs if sampled(run, 0.01)} < {run for run in runs if sampled(run, 0.1)}
    assert not any(sampled(run, 0) for run in runs)
    assert all(sampled(run, 1) for run in runs)


@pytest.mark.parametrize("rate", [-0.1, 1.5])
def test_a_rate_is_a_share(tmp_path: Path, rate: float) -> None:
    with pytest.raises(BadDeclaration, match="between 0 and 1"):
        App(tmp_path / "test.db", planted, verify_rate=rate)
    with pytest.raises(BadDeclaration, match="needs the past"):
        App(tmp_path / "test.db", planted, verify_rate=0.5, recording=False)
