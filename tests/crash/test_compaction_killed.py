"""Compaction killed at any instant leaves everything either before or after: the page log is whole, what was acknowledged is there, every
state from the horizon on is what it was, and no old run id runs again."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import retroact
from retroact.engine.sqlite.history import History
from retroact.errors import BeyondHistory

SEED = int(os.environ.get("RETROACT_CRASH_SEED", "0")) or random.SystemRandom().randrange(1, 10**6)
KILLS = int(os.environ.get("RETROACT_CRASH_KILLS", "200"))
VICTIM = Path(__file__).with_name("compacting.py")


def live(database: Path, seconds: float, size: str) -> int:
    """One generation, killed so many seconds after it was open. The last count that it acknowledged."""
    environment = {**os.environ, "PYTHONPATH": str(Path(retroact.__file__ or "").parents[1])}
    child = subprocess.Popen([sys.executable, str(VICTIM), str(database), size], stdout=subprocess.PIPE, env=environment)
    assert child.stdout is not None
    opened = child.stdout.readline()
    assert opened == b"open\n", "the generation before left something that cannot be opened"
    try:
        child.wait(seconds)
    except subprocess.TimeoutExpired:
        child.send_signal(signal.SIGKILL)
    lines = child.stdout.read().rpartition(b"\n")[0].split(b"\n")
    child.stdout.close()
    assert child.wait() == -signal.SIGKILL
    return int(lines[-1] or 0)


def check(database: Path, acknowledged: int, chance: random.Random) -> int:
    history = History(database)
    assert not list(history.pages.verify())
    last = history.trace.verify()
    assert last == history.trace.last_version()
    horizon = history.trace.horizon().version
    assert last - 1 >= acknowledged, "an acknowledged count was lost"
    first = max(horizon, 1)  # before it there is no table yet: killed early, nothing was compacted
    versions = {last, first, *(chance.randint(first, last) for _ in range(10))} if last >= first else set[int]()
    for version in sorted(versions):
        branch = history.at(version)
        assert branch.query("select n from counter where name = 'a'")[1] == ([(version - 1,)])
        branch.close()
    if horizon > 1:
        with pytest.raises(BeyondHistory):
            history.at(chance.randint(0, horizon - 1))
    history.close()
    return horizon


def survive(database: Path, kills: int, seed: int) -> None:
    command = "python -m pytest tests/crash/test_compaction_killed.py -m 'long or not long'"
    print(f"RETROACT_CRASH_SEED={seed} RETROACT_CRASH_KILLS={kills} {command}")
    chance = random.Random(seed)
    acknowledged, horizons = 0, []
    for _ in range(kills):
        acknowledged = max(acknowledged, live(database, chance.random() * 0.6, chance.choice(("70KB", "300KB"))))
        horizons.append(check(database, acknowledged, chance))
    assert horizons == sorted(horizons)
    assert horizons[-1] > 0
    print(f"{kills} kills, {acknowledged} counts acknowledged, the horizon at {horizons[-1]}")


def test_killed_a_few_times(tmp_path: Path) -> None:
    survive(tmp_path / "test.db", 4, SEED)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_killed_hundreds_of_times(tmp_path: Path) -> None:
    survive(tmp_path / "test.db", KILLS, SEED)
