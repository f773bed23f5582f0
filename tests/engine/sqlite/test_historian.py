"""The page log is the same whoever writes it: a thread here, a process of its own, and one after the other in any order."""

from __future__ import annotations

import os
import random
import signal
import threading
from pathlib import Path

import pytest
from tests.engine.sqlite import body

from retroact import App
from retroact.engine.sqlite import historian as historian_module
from retroact.engine.sqlite.historian import Historian
from retroact.engine.sqlite.history import History
from retroact.engine.sqlite.scribe_process import Gone, ScribeProcess

COUNTER = "select n from counter where name = 'a'"


def past(path: Path) -> list[int]:
    """What the counter was at each version."""
    history = History(path)
    found: list[int] = []
    for version in range(2, history.trace.last_version() + 1):
        branch = history.at(version)
        found.append(branch.query(COUNTER)[1][0][0])
        branch.close()
    history.close()
    return found


def historian_of(app: App) -> Historian:
    assert app.engine.historian is not None
    return app.engine.historian


@pytest.mark.parametrize("seed", range(3))
def test_it_may_move_at_any_time(tmp_path: Path, seed: int) -> None:
    """Between any two commits it moves out, comes back, or its process is killed; no version is lost."""
    chance = random.Random(seed)
    with App(tmp_path / "test.db", body) as app:
        app.run(body.create)
        historian = historian_of(app)
        for _ in range(60):
            app.run(body.increment, "a")
            match chance.randrange(12):
                case 0:
                    historian._may_move = True
                    historian.move_out()
                    assert historian.elsewhere
                case 1 if isinstance(historian._scribe, ScribeProcess):
                    os.kill(historian._scribe._process.pid, signal.SIGKILL)
                    app.run(body.increment, "a")
                    historian.store()
                    assert not historian.elsewhere
                case 2 | 3:
                    historian.store()
                case 4:
                    app.engine._checkpointer._due = 1
                case _:
                    pass
        count = app.run(body.increment, "a")
    assert past(tmp_path / "test.db") == list(range(1, count + 1))


def test_a_busy_one_moves_by_itself_and_an_idle_one_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(historian_module, "LAG_FRAMES", 20)
    monkeypatch.setattr(historian_module, "IDLE_SECONDS", 0.05)
    moved, returned = threading.Event(), threading.Event()
    move_out, come_back = Historian.move_out, Historian._return

    def moving(self: Historian) -> None:
        move_out(self)
        moved.set()

    def returning(self: Historian) -> None:
        come_back(self)
        returned.set()

    monkeypatch.setattr(Historian, "move_out", moving)
    monkeypatch.setattr(Historian, "_return", returning)
    with App(tmp_path / "test.db", body) as app:
        app.run(body.create)
        count = 0
        while not moved.is_set():
            count = app.run(body.increment, "a")
        returned.clear()
        assert returned.wait(20)
        assert not historian_of(app).elsewhere
    assert past(tmp_path / "test.db") == list(range(1, count + 1))


def test_a_process_that_cannot_open_the_page_log_says_nothing_and_is_gone(tmp_path: Path) -> None:
    process = ScribeProcess(tmp_path / "nothing.db", None)
    with pytest.raises(Gone):
        process.open()
    process.close()


def test_where_no_process_can_be_started_it_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with App(tmp_path / "test.db", body) as app:
        app.run(body.create)
        monkeypatch.setattr("sys.executable", str(tmp_path / "no python"))
        historian_of(app).move_out()
        assert not historian_of(app).elsewhere
        app.run(body.increment, "a")
    assert past(tmp_path / "test.db") == [1]
