"""Every past state is what the live database was, whatever SQL can do to it: the same schema, rows, rowids and types, at every commit.

A program drawn from a seed does everything that ever made a copy differ from its original, with VACUUM, checkpoints, the page log being
stored and the App being closed in between. After each commit the live database is digested; afterwards every version is opened and
digested again, and all of it is replayed.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import random
from pathlib import Path
from typing import Any

import apsw
import pytest
from tests.torture import body, witness
from tests.torture.program import SCHEMA, Program

from retroact import App
from retroact.engine.sqlite.database import open_reader
from retroact.engine.sqlite.history import History
from retroact.replay.divergence import Verdict
from retroact.replay.workflows import replay_runs

SEED = int(os.environ.get("RETROACT_SEED", "20"))
#: How often the database is written anew: the page log keeps every copy of it.
VACUUMS = 0.0005
COMMITS = int(os.environ.get("RETROACT_COMMITS", "100000"))


class Torture:
    """An App under torture, with what it was after each commit."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.path = folder / "test.db"
        self.seen: dict[int, bytes] = {}
        self._random = random.Random(seed)
        self._program = Program(seed)
        self._open()
        self._app.run(body.do, [(sql, {}) for sql in SCHEMA])
        self._look()

    def suffer(self, count: int) -> None:
        for _ in range(count):
            chance = self._random.random()
            if chance < VACUUMS:
                self._app.vacuum()
            elif chance < 0.006:
                self._app.engine._checkpointer._due = 1
            elif chance < 0.012:
                historian = self._app.engine.historian
                assert historian is not None
                historian.store()
            elif chance < 0.013:
                self.close()
                self._open()
            else:
                with contextlib.suppress(body.Refused, apsw.Error):
                    self._app.run(body.do, self._program.transaction(), fails=self._random.random() < 0.05)
            self._look()

    def close(self) -> None:
        self._reader.close()
        self._app.close()

    def _open(self) -> None:
        self._app = App(self.path, body)
        self._reader = open_reader(self.path)

    def _look(self) -> None:
        self.seen[self._app.trace.last_version()] = witness.digest(lambda sql: self._reader.execute(sql).fetchall())


def other_than_it_was(path: Path, seen: list[tuple[int, bytes]]) -> list[Any]:
    """The versions that are not what they were."""
    wrong: list[Any] = []
    history = History(path)
    for version, expected in seen:
        try:
            branch = history.at(version)
            found = witness.digest(lambda sql, branch=branch: branch.query(sql)[1])
            branch.close()
        except Exception as error:  # noqa: BLE001 - whatever goes wrong is what the test is about
            wrong.append((version, repr(error)))
        else:
            if found != expected:
                wrong.append(version)
    history.close()
    return wrong


def check_replay(path: Path, command: str) -> None:
    history = History(path)
    report = replay_runs(history, [run.run for run in history.trace.runs()])
    history.close()
    strange = [(t.record.version, t.verdict, t.reason, t.divergence) for t in report.transactions if t.verdict is not Verdict.IDENTICAL]
    assert not strange, f"{command}: {strange[:3]}"


@pytest.mark.parametrize("seed", [SEED, SEED + 1])
def test_every_version_is_what_it_was(tmp_path: Path, seed: int) -> None:
    command = f"RETROACT_SEED={seed} pytest tests/torture -k 'every_version'"
    torture = Torture(tmp_path, seed)
    torture.suffer(250)
    torture.close()
    wrong = other_than_it_was(torture.path, list(torture.seen.items()))
    assert not wrong, f"{command}: {wrong[:10]}"
    check_replay(torture.path, command)


@pytest.mark.long
@pytest.mark.timeout(7200)
def test_every_version_of_very_many(tmp_path: Path) -> None:
    """RETROACT_COMMITS says how many, RETROACT_SEED which."""
    command = f"RETROACT_SEED={SEED} RETROACT_COMMITS={COMMITS} pytest -m long tests/torture"
    torture = Torture(tmp_path, SEED)
    torture.suffer(COMMITS)
    torture.close()
    seen = list(torture.seen.items())
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        parts = [seen[i : i + 2000] for i in range(0, len(seen), 2000)]
        wrong = [v for found in pool.starmap(other_than_it_was, [(torture.path, part) for part in parts]) for v in found]
    assert not wrong, f"{command}: {len(wrong)} of {len(seen)}: {wrong[:10]}"
    check_replay(torture.path, command)
