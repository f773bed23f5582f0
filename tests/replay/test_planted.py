"""A replay that is not exact says so: planted non-determinism is found at its statement, a planted edit before anything is replayed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest
from tests.replay import planted

from retroact import App
from retroact.engine.sqlite.history import History
from retroact.errors import DamagedPage, DamagedTrace
from retroact.replay.divergence import Verdict
from retroact.replay.replayer import Replayer, Report
from retroact.replay.shelf import Shelf
from retroact.trace.record import RunId

ROOT = Path(__file__).resolve().parents[2]


def edit(path: Path, *statements: str) -> None:
    database = apsw.Connection(str(path))
    database.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
    for statement in statements:
        database.execute(statement).fetchall()
    database.close()


def replay(path: Path, *, after: int = 0, until: int | None = None) -> Report:
    history = History(path)
    shelf = Shelf(history.trace)
    try:
        records = list(history.trace.records_between(after, until or history.trace.last_version()))
        return Replayer(history, shelf).replay(sorted(records, key=lambda r: (r.snapshot, r.version)))
    finally:
        shelf.close()
        history.close()


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database in which a dozen things have happened."""
    path = tmp_path_factory.mktemp("lived") / "test.db"
    with App(path, planted) as app:
        app.run(planted.create)
        for n in range(10):
            app.run(planted.pay, n, run=f"pay-{n}")
            app.run(planted.draw)
        with pytest.raises(apsw.ConstraintError):
            app.run(planted.refuse, run="refused")
    return path


@pytest.fixture
def path(lived: Path, tmp_path: Path) -> Path:
    """A copy of it to spoil."""
    for file in lived.parent.iterdir():
        if file.suffix != "":
            shutil.copy(file, tmp_path / file.name)
    return tmp_path / "test.db"


@pytest.mark.parametrize(
    ("function", "statement", "part"),
    [
        (planted.count_on_a_global, 2, "parameters"),
        (planted.branch_on_a_global, 2, "statement"),
        (planted.return_a_global, None, "outcome"),
    ],
)
def test_what_is_not_deterministic_is_found_where_it_is(tmp_path: Path, function: Any, statement: int | None, part: str) -> None:
    """The verdict names the statement, and one divergence does not spoil what follows."""
    with App(tmp_path / "test.db", planted) as app:
        app.run(planted.create)
        app.run(planted.pay, 5)
        # An odd count in all, so that the module that is loaded anew for the replay begins elsewhere.
        next(planted.COUNTER)
        while next(planted.COUNTER) % 2 == 0:
            pass
        app.run(function, run="planted")
        app.run(planted.pay, 6)
    report = replay(tmp_path / "test.db")
    verdicts = {t.record.function: t.verdict for t in report.transactions}
    assert verdicts == {"create": Verdict.IDENTICAL, "pay": Verdict.IDENTICAL, function.name: Verdict.DIVERGED}
    (diverged,) = (t for t in report.transactions if t.verdict is Verdict.DIVERGED)
    assert diverged.divergence is not None
    assert (diverged.divergence.statement, diverged.divergence.part) == (statement, part)
    told = diverged.divergence.explain(diverged.record)
    assert "Let T =" in told
    assert "Then T diverged" in told
    assert "because" in told


def test_an_untouched_trace_replays_identically_from_anywhere(path: Path) -> None:
    last = replay(path).transactions[-1].record.version
    for after in (0, 1, last // 2, last - 1):
        report = replay(path, after=after)
        assert len(report.transactions) == last - after
        assert report.count(Verdict.IDENTICAL) == last - after


EDITS = {
    "run": "'another'",
    "step": "step + 1",
    "attempt": "attempt + 1",
    "function": "(select max(id) + 1 from retroact_function)",
    "arguments": "'{\"n\":4}'",
    "snapshot": "version - 2",
    "began_us": "began_us + 1",
    "elapsed_us": "elapsed_us + 1",
    "value": "'999'",
    "failure": '\'{"error":"builtins.ValueError","message":"planted"}\'',
    "statements": "replace(statements, '3', '4')",
    "changes": "replace(changes, '[', ' [')",
    "chain": "chain + 1",
}
GARBAGE = dict.fromkeys(("statements", "changes", "failure"), "'not JSON'")


@pytest.mark.parametrize(("column", "value"), [*EDITS.items(), *GARBAGE.items()])
def test_an_edited_record_is_not_replayed(path: Path, column: str, value: str) -> None:
    edit(path, f"update retroact_record set {column} = {value} where run = 'pay-5'")
    with pytest.raises(DamagedTrace) as caught:
        replay(path)
    assert "Restore the file from a backup" in str(caught.value)
    with pytest.raises(DamagedTrace):
        App(path, planted).trace.verify()


@pytest.mark.parametrize(
    "statement",
    [
        "delete from retroact_record where run = 'pay-5'",
        "delete from retroact_record where version = 1",
        "update retroact_record set version = version + 1000 where run = 'refused'",
    ],
)
def test_a_record_that_is_gone_is_missed(path: Path, statement: str) -> None:
    edit(path, statement)
    history = History(path)
    try:
        with pytest.raises(DamagedTrace) as caught:
            history.trace.verify()
    finally:
        history.close()
    assert "it is missing" in str(caught.value)


def test_every_column_of_a_record_is_in_the_chain(path: Path) -> None:
    edit(path, "select 1")
    database = apsw.Connection(str(path))
    columns = {row[1] for row in database.execute("pragma table_info(retroact_record)")}
    database.close()
    assert columns == {*EDITS, "version"}


def test_an_edited_page_is_found_when_it_is_needed(path: Path) -> None:
    """A byte of one stored page version is changed; states that need it are refused, verification names it."""
    side = path.with_name("test.db-pages")
    edit(
        side,
        "update pagelog_chunk set data = cast(substr(data, 1, length(data) / 2) || x'5a' || substr(data, length(data) / 2 + 2) as blob)"
        " where place = (select place from pagelog_chunk order by length(data) desc limit 1)",
    )
    history = History(path)
    try:
        assert [type(problem) for problem in history.pages.verify()] != []
        with pytest.raises(DamagedPage) as caught:  # noqa: PT012 - which version meets the damage is not known before
            for version in range(history.trace.last_version() + 1):
                branch = history.at(version)
                branch.query("pragma integrity_check")
    finally:
        history.close()
    assert str(side) in str(caught.value)


WRITER = """
import sys
from tests.replay import planted
from retroact import App
app = App(sys.argv[1], planted)
app.run(planted.create)
n = 0
for line in sys.stdin:
    for _ in range(int(line)):
        n += 1
        app.run(planted.pay, n % 7)
        app.run(planted.draw)
    print("done", flush=True)
app.close()
"""


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[Any]:
    """Another process that writes: told how many times, says when it has."""
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"}
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path / "test.db")], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    yield process
    process.kill()
    process.communicate()


def write(process: Any, times: int, *, wait: bool = True) -> None:
    process.stdin.write(f"{times}\n")
    process.stdin.flush()
    if wait:
        assert process.stdout.readline() == "done\n"


def test_the_past_is_read_beside_the_process_that_writes(writer: Any, tmp_path: Path) -> None:
    path = tmp_path / "test.db"
    write(writer, 20)
    write(writer, 300, wait=False)
    seen = []
    while len(seen) < 4:
        history = History(path)
        last = history.trace.last_version()
        branch = history.at(last)
        assert branch.query("select count(*) from account")[1] == [(2,)]
        history.close()
        report = replay(path, after=max(0, last - 50), until=last)
        assert report.count(Verdict.IDENTICAL) == len(report.transactions)
        seen.append(last)
    assert seen == sorted(seen)
    assert writer.stdout.readline() == "done\n"


def test_the_past_of_a_process_that_was_killed(writer: Any, tmp_path: Path) -> None:
    """The page log lags behind, so it is brought up to the write-ahead log before anything is opened."""
    path = tmp_path / "test.db"
    write(writer, 30)
    write(writer, 3000, wait=False)
    history = History(path)
    while history.trace.last_version() < 100:
        pass
    history.close()
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    report = replay(path)
    assert report.count(Verdict.IDENTICAL) == len(report.transactions) >= 100
    history = History(path)
    assert history.pages.last_commit.version == history.trace.last_version()
    assert not list(history.pages.verify())
    history.close()
    with App(path, planted) as app:
        app.run(planted.pay, 1, run="afterwards")
    assert replay(path).count(Verdict.IDENTICAL) == len(report.transactions) + 1


def test_a_failure_is_replayed_as_the_failure_it_was(path: Path) -> None:
    history = History(path)
    (record,) = history.trace.records_of(RunId("refused"))
    history.close()
    (replayed,) = replay(path, after=record.version - 1, until=record.version).transactions
    assert replayed.verdict is Verdict.IDENTICAL
    assert record.outcome.failure is not None
    assert record.outcome.failure.statement == 2
