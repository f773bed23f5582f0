"""`retroact compact` and `retroact migrate`, and what doctor says of growth."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.cli.conftest import Retroact

import retroact as retroact_package
from retroact import App
from retroact.engine.sqlite import mailbox
from retroact.engine.sqlite.lock import WriterLock
from retroact.function.code import load_path
from retroact.testing import ManualClock

WRITER = """
import sys
from retroact import App
with App("shop.db", recover=False):
    print("open", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A project of which the days are long gone."""
    (tmp_path / "shop.py").write_text(
        "from retroact import transaction\n\n@transaction\ndef setup(conn):\n    conn.execute('create table t (n)')\n\n"
        "@transaction\ndef add(conn, n: int):\n    conn.execute('insert into t values (:n)', n=n)\n"
    )
    (tmp_path / "retroact.toml").write_text('code = "shop.py"\ndatabase = "shop.db"\n')
    clock = ManualClock()
    with App(tmp_path / "shop.db", load_path(tmp_path / "shop.py"), clock=clock) as app:
        app.run("setup", run="setup")
        for n in range(200):
            app.run("add", n, run=f"add-{n}")
            if n % 20 == 19:
                app._catch_up()
                clock.advance(86_400)
    return tmp_path


@pytest.fixture
def writer(old: Path) -> Iterator[None]:
    """Another process has the database open."""
    path = {"PYTHONPATH": str(Path(retroact_package.__file__ or "").parents[1])}
    pipe = subprocess.PIPE
    child = subprocess.Popen([sys.executable, "-c", WRITER], cwd=old, stdin=pipe, stdout=pipe, env={**os.environ, **path})
    assert child.stdout is not None
    assert child.stdout.readline() == b"open\n"
    yield
    child.communicate(b"")


def test_compact(old: Path, retroact: Retroact) -> None:
    dry = retroact("compact", "--keep-days", "1", "--dry-run", at=old)
    assert (dry.code, dry.err) == (0, "Nothing was changed. Without --dry-run it is dropped.\n")
    assert "horizon   would be version 201 (20" in dry.out
    done = retroact("compact", "--keep-days", "1", "--vacuum", at=old)
    assert "horizon   is version 201 (20" in done.out
    assert "shop.db was written anew" in done.out
    refused = retroact("asof", "5", "select * from t", at=old)
    assert refused.code == 4
    assert "begins at version 201 (20" in refused.err
    trace = retroact("trace", "add-7", at=old)
    assert "dropped     its arguments, statements and row changes: the kept past begins at version 201 (20" in trace.out
    assert retroact("trace", "add-7", "--json", at=old).json["horizon"] == 201
    assert "Of runs before the horizon only the outcome is kept" in retroact("runs", at=old).err
    replay = retroact("replay", "add-7", at=old)
    assert (replay.code, "begins at version 201 (20" in replay.err) == (4, True)
    assert retroact("retro", "add-7", "--with", "shop.py", at=old).code == 4


def test_compact_asks_the_process_that_writes(old: Path, writer: None, retroact: Retroact) -> None:
    answer = retroact("compact", "--keep-days", "1", "--json", at=old)
    assert (answer.code, answer.json["after"]["version"]) == (0, 201)
    assert not list(old.glob("*request*"))


def test_a_process_that_does_not_answer(old: Path, retroact: Retroact, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mailbox.Mailbox.ask, "__kwdefaults__", {"seconds": 0.1})
    lock = WriterLock(old / "shop.db")
    lock.acquire()
    answer = retroact("compact", "--keep-days", "1", at=old)
    lock.release()
    assert answer.code == 5
    assert "did not answer within 0.1 s when it was asked to compact" in answer.err
    assert not list(old.glob("*request*"))


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((), "nothing says what is to be kept"),
        (("--table", "t"), "does not say how long"),
        (("--table", "t:soon"), "'soon' is not an age"),
        (("--keep-size", "much"), "'much' is not a size"),
        (("--keep-days", "2", "--table", "t:3d"), "cannot be kept for longer"),
    ],
)
def test_what_cannot_be_kept(old: Path, retroact: Retroact, words: tuple[str, ...], told: str) -> None:
    answer = retroact("compact", *words, at=old)
    assert (answer.code, told in answer.err) == (2, True)


def test_the_project_says_what_is_kept(old: Path, retroact: Retroact) -> None:
    with (old / "retroact.toml").open("a") as file:
        file.write('[retention]\nage = "1d"\nsize = "1GB"\n[retention.tables]\nt = "0d"\n')
    assert retroact("compact", "--json", at=old).json["after"]["version"] == 201
    facts = json.loads(retroact("doctor", "--json", at=old).out)["growth"]
    assert facts["limit_bytes"] == 10**9
    assert facts["transactions_a_day"] == 40  # the newest and those of exactly a day before
    assert facts["days_until_the_limit"] > 10_000
    assert facts["horizon"].startswith("version 201 (20")
    assert 50 < facts["trace_bytes_per_transaction"] < 400
    (old / "retroact.toml").write_text('database = "shop.db"\n[retention]\nforever = true\n')
    assert retroact("compact", at=old).code == 2


def test_migrate(old: Path, retroact: Retroact) -> None:
    folder = old / "migrations"
    folder.mkdir()
    (folder / "0001_more.sql").write_text("create table u (a);\ninsert into u values (1);\n")
    (folder / "0002_fill.py").write_text(
        "def migrate(conn):\n    print('a migration that prints')\n    conn.execute('update u set a = 2')\n"
    )
    assert retroact("migrate", "--status", at=old).code == 1
    dry = retroact("migrate", "--dry-run", at=old)
    assert "0001_more.sql  2 statements\n  line 1    create table u (a)\n" in dry.out
    done = retroact("migrate", at=old)
    assert (done.code, done.out) == (0, "applied 0001_more.sql as version 202\napplied 0002_fill.py as version 203\n")
    assert retroact("migrate", at=old).out == "nothing to do: 2 migrations applied already\n"
    assert [m["applied"] for m in retroact("migrate", "--status", "--json", at=old).json] == [True, True]
    assert retroact("asof", "203", "select a from u", "--json", at=old).json["rows"] == [{"a": 2}]
    assert retroact("replay", "migration-0001", "migration-0002", "add-3", at=old).code == 0
    (folder / "0003_bad.sql").write_text("create table v (a);\ninsert into w values (1);\n")
    bad = retroact("migrate", at=old)
    assert bad.code == 3
    assert "0003_bad.sql, line 2, statement 2: no such table: w. Nothing of it was applied" in bad.err
    assert retroact("migrate", "elsewhere", at=old).code == 2
